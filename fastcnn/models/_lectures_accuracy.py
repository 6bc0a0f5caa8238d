"""The accuracy on ImageNet that lectures print: data of docs/accuracy.md. Data only.

Of several tables that print one network's, the last; of SENet's tables, the authors' own training of all that they
compare, at the size of the network's own images. What is printed as an error is 100 less it.
"""

from __future__ import annotations

from typing import NamedTuple


class Accuracy(NamedTuple):
    """One network in one table.

    Attributes:
        network: its name here.
        top1: images of which the likeliest class is right, in per cent.
        line: key of LECTURES, and the line of the lecture's text that prints it.
        side: of the images, where it is not the network's own.
    """

    network: str
    top1: float
    line: str
    side: int | None = None


ACCURACIES = (
    Accuracy("resnet50_v1", 75.2, "000:473"),
    Accuracy("legacy_seresnet50", 76.71, "000:473"),
    Accuracy("resnet101_v1", 76.83, "000:474"),
    Accuracy("legacy_seresnet101", 77.62, "000:474"),
    Accuracy("legacy_seresnet152", 78.43, "000:475"),
    Accuracy("resnext50_32x4d", 77.89, "000:476"),
    Accuracy("legacy_seresnext50_32x4d", 78.9, "000:476"),
    Accuracy("resnext101_32x4d", 78.82, "000:477"),
    Accuracy("legacy_seresnext101_32x4d", 79.3, "000:477"),
    Accuracy("se_vgg16", 74.78, "000:478"),
    Accuracy("se_bn_inception", 75.77, "000:479"),
    Accuracy("se_inception_resnet_v2", 80.2, "000:480"),
    Accuracy("se_mobilenet_v1", 74.7, "000:486"),
    Accuracy("shufflenet_v1_g3", 66.1, "000:487"),
    Accuracy("se_shufflenet_v1_g3", 68.3, "000:487"),
    Accuracy("mobilenet_v1_x0_75", 68.4, "000:636"),
    Accuracy("mobilenet_v1_x0_5", 63.7, "000:637"),
    Accuracy("mobilenet_v1_x0_25", 50.6, "000:638"),
    Accuracy("mobilenet_v1", 69.1, "000:646", 192),
    Accuracy("mobilenet_v1", 67.2, "000:647", 160),
    Accuracy("mobilenet_v1", 64.4, "000:648", 128),
    Accuracy("googlenet", 69.8, "000:658"),
    Accuracy("vgg16", 71.5, "000:659"),
    Accuracy("mobilenet_v1_x0_5", 60.2, "000:664", 160),
    Accuracy("squeezenet1_0", 57.5, "000:665"),
    Accuracy("alexnet", 57.2, "000:666"),
    Accuracy("se_shufflenet_v1_x2_0_g3", 75.3, "000:706"),
    Accuracy("shufflenet_v1_g8", 67.6, "000:710"),
    Accuracy("shufflenet_v1_x0_5_g4", 58.4, "000:712"),
    Accuracy("shufflenet_v1_x0_5_shallow_g3", 57.2, "000:713"),
    Accuracy("mobilenet_v1", 70.6, "000:752"),
    Accuracy("shufflenet_v1_x1_5_g3", 71.5, "000:753"),
    Accuracy("shufflenet_v1_x2_0_g3", 73.7, "000:754"),
    Accuracy("nasnet_a_mobile", 74.0, "000:755"),
    Accuracy("mobilenet_v2_x1_4", 74.7, "000:757"),
    Accuracy("bn_inception", 74.8, "000:807"),
    Accuracy("nasnet_a_5_1536", 78.6, "000:808"),
    Accuracy("nasnet_a_7_1920", 80.8, "000:812"),
    Accuracy("dpn131", 81.5, "000:815", 320),
    Accuracy("mobilenet_v3_large", 75.2, "000:913"),
    Accuracy("mobilenet_v3_large_x0_75", 73.3, "000:914"),
    Accuracy("mnasnet_a1", 75.2, "000:915"),
    Accuracy("proxylessnas_mobile", 74.6, "000:916"),
    Accuracy("mobilenet_v2", 72.0, "000:917"),
    Accuracy("mobilenet_v3_small", 67.4, "002:602"),
    Accuracy("mobilenet_v3_small_x0_75", 65.4, "002:603"),
    Accuracy("mnasnet_small", 64.9, "000:920"),
    Accuracy("mobilenet_v2_x0_35", 60.8, "000:921"),
    Accuracy("efficientnet_b0", 76.3, "000:981"),
    Accuracy("resnet50", 76.0, "000:982"),
    Accuracy("densenet169", 76.2, "000:983"),
    Accuracy("efficientnet_b1", 78.8, "000:984"),
    Accuracy("resnet152_v1", 77.8, "000:985"),
    Accuracy("densenet264", 77.9, "000:986"),
    Accuracy("inception_v3", 78.8, "000:987"),
    Accuracy("xception", 79.0, "000:988"),
    Accuracy("efficientnet_b2", 79.8, "000:989"),
    Accuracy("inception_v4", 80.0, "000:990"),
    Accuracy("inception_resnet_v2", 80.1, "000:991"),
    Accuracy("efficientnet_b3", 81.1, "000:992"),
    Accuracy("resnext101_64x4d", 80.9, "000:993", 320),
    Accuracy("polynet", 81.3, "000:994"),
    Accuracy("efficientnet_b4", 82.6, "000:995"),
    Accuracy("legacy_senet154", 82.7, "000:996", 320),
    Accuracy("nasnet_a_large", 82.7, "000:997"),
    Accuracy("amoebanet_a", 82.8, "000:998"),
    Accuracy("pnasnet5_large", 82.9, "000:999"),
    Accuracy("efficientnet_b5", 83.3, "000:1000"),
    Accuracy("amoebanet_c", 83.5, "000:1001"),
    Accuracy("efficientnet_b6", 84.0, "000:1002"),
    Accuracy("efficientnet_b7", 84.4, "000:1003"),
    Accuracy("amoebanet_b_gpipe", 84.3, "000:1004"),
)
