"""Parameters and multiply-adds are those of torchvision's networks without their auxiliary classifiers."""

from dense_rows import ANY, Dense

_SMALL = {"backbone_options": (("layers", (1, 1, 1, 1)),)}
_AUX = {"aux_classifier": True}

EXPECTED = {
    "fcn_resnet50": Dense(
        32_957_013,
        142_725_772_800,
        ANY,
        golden="fcn_resnet50",
        small=_SMALL,
        trace=(("backbone.layer2", (512, 65, 65)), ("classifier", (21, 65, 65))),
        variants=((_AUX, 35_322_218, None),),  # The published weights' "num_params".
    ),
    "fcn_resnet101": Dense(51_949_141, 222_746_867_200, ANY, small=_SMALL | _AUX, variants=((_AUX, 54_314_346, None),)),
}
