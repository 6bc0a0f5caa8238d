"""Ensembles, crops, whole images and scales: means of softmax, worked out by hand, and what they cost."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastcnn import data
from fastcnn.models import (
    Ensemble,
    Preprocess,
    create,
    dense_predict,
    multi_crop_predict,
    multi_scale_predict,
)
from fastcnn.nn.convolutional import to_fully_convolutional
from fastcnn.ops import _library


class Segmenter(nn.Module):
    """A map of logits at half the size."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, padding=1)
        self.last = nn.Conv2d(8, 5, 3, padding=1)

    def forward(self, x):
        return self.last(self.first(x).relu())


class Pooled(Segmenter):
    """A classifier of any size."""

    def forward(self, x):
        return super().forward(x).mean((2, 3))


def macs(run):
    counter = _library.flop_counter()
    with counter:
        run()
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def pair():
    return [create(name, 4).eval() for name in ("mobilenet_v2", "squeezenet1_1")]


def test_an_ensemble_is_the_mean_of_softmax(pair):
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = (pair[0](x).softmax(1) + pair[1](x).softmax(1)) / 2
    found = Ensemble(pair)(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found.sum(1), torch.ones(2))
    assert not found.requires_grad
    assert not torch.allclose(found, ((pair[0](x) + pair[1](x)) / 2).softmax(1))


def test_members_with_preprocessing_of_their_own():
    small = Preprocess(64, mean=(0.0,) * 3, std=(2.0,) * 3)
    nets = [create("squeezenet1_1", 4).eval(), create("squeezenet1_1", 4, preprocess=small).eval()]
    pixels = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8)
    found = Ensemble(nets, preprocess=True)(pixels)
    with torch.no_grad():
        first, second = (net(net.preprocess(pixels)).softmax(1) for net in nets)
    torch.testing.assert_close(found, (first + second) / 2)


def test_crops_are_averaged(pair):
    images = torch.randn(2, 3, 70, 80)
    with torch.no_grad():
        wanted = torch.stack([pair[0](crop).softmax(1) for crop in data.ten_crop(images, 64)]).mean(0)
    torch.testing.assert_close(multi_crop_predict(pair[0], data.ten_crop(images, 64)), wanted)
    # Mirror images of the same are the same ten.
    torch.testing.assert_close(multi_crop_predict(pair[0], data.ten_crop(images.flip(-1), 64)), wanted)


def test_dense_evaluation_is_the_mean_of_scores_over_places():
    torch.manual_seed(0)
    net = Segmenter().double().eval()
    images = torch.randn(2, 3, 20, 26, dtype=torch.float64)
    with torch.no_grad():
        scores = [net(each).mean((2, 3)).softmax(1) for each in (images, images.flip(-1))]
    torch.testing.assert_close(dense_predict(net, images, flip=False), scores[0])
    torch.testing.assert_close(dense_predict(net, images), (scores[0] + scores[1]) / 2)


def test_one_scale_is_the_network():
    net, images = Segmenter().eval(), torch.randn(1, 3, 16, 24)
    with torch.no_grad():
        plain = F.interpolate(net(images), (16, 24), mode="bilinear").softmax(1)
    torch.testing.assert_close(multi_scale_predict(net, images, (1.0,), flip=False), plain)


def test_scales_and_mirror_images_of_maps():
    net, images = Segmenter().double().eval(), torch.randn(2, 3, 16, 24, dtype=torch.float64)
    found = multi_scale_predict(net, images, (0.5, 1.5))
    looks = []
    with torch.no_grad():
        for size in ((8, 12), (24, 36)):
            scaled = F.interpolate(images, size, mode="bilinear", antialias=size[0] < 16)
            looks.append(F.interpolate(net(scaled), (16, 24), mode="bilinear").softmax(1))
            back = F.interpolate(net(scaled.flip(-1)), (16, 24), mode="bilinear").flip(-1)
            looks.append(back.softmax(1))
    torch.testing.assert_close(found, torch.stack(looks).mean(0))
    # Of mirror images, the mirrored map.
    torch.testing.assert_close(multi_scale_predict(net, images.flip(-1), (0.5, 1.5)), found.flip(-1))


def test_scales_of_valid_convolutions():
    """Whose own map would be of the middle of the image."""
    net = create("unet", width=2, depth=1, dtype=torch.float64).eval()
    images = torch.rand(1, 1, 30, 22, dtype=torch.float64)
    found = multi_scale_predict(net, images, (1.0,), flip=False)
    with torch.no_grad():
        torch.testing.assert_close(found, net.predict(images).softmax(1))
    assert found.shape == (1, 2, 30, 22)


def test_scales_of_a_classifier():
    net, images = Pooled().eval(), torch.randn(2, 3, 16, 16)
    found = multi_scale_predict(net, images, (1.0, 2.0), flip=False)
    with torch.no_grad():
        looks = [net(each).softmax(1) for each in (images, F.interpolate(images, (32, 32), mode="bilinear"))]
    torch.testing.assert_close(found, (looks[0] + looks[1]) / 2)


def test_six_scales_and_mirror_images_cost_17_375_times():
    """Twice 0.5^2 + 0.75^2 + ... + 1.75^2: the factor between the lectures' 5.8 and 387 G is this and the stride's."""
    net, images = Segmenter().eval().to("meta"), torch.empty(1, 3, 64, 64, device="meta")
    once = macs(lambda: net(images))
    assert macs(lambda: multi_scale_predict(net, images)) / once == 17.375
    assert macs(lambda: multi_scale_predict(net, images, flip=False)) / once == 17.375 / 2


def test_networks_in_training_mode(pair):
    net = Segmenter()
    images = torch.zeros(1, 3, 16, 16)
    for run in (multi_scale_predict, dense_predict, lambda net, x: multi_crop_predict(net, [x])):
        with pytest.raises(RuntimeError, match="this Segmenter is in training mode"):
            run(net, images)
    with pytest.raises(RuntimeError, match="in training mode"):
        Ensemble([create("squeezenet1_1", 4)])(torch.zeros(1, 3, 64, 64))


def test_bad_arguments(pair):
    with pytest.raises(ValueError, match=r"as many classes each, one or more, got \[4, 5\]"):
        Ensemble([pair[0], create("squeezenet1_1", 5)])
    with pytest.raises(ValueError, match=r"got \[\]"):
        Ensemble([])
    with pytest.raises(ValueError, match="no crops"):
        multi_crop_predict(pair[0], [])
    with pytest.raises(ValueError, match=r"scales must be above 0, one or more, got \(0.5, 0\)"):
        multi_scale_predict(pair[0], torch.zeros(1, 3, 64, 64), (0.5, 0))
    with pytest.raises(ValueError, match=r"takes a fully convolutional network, this one gives \(1, 4\)"):
        dense_predict(pair[0], torch.zeros(1, 3, 64, 64))


def test_dense_evaluation_at_native_size_is_the_classifier():
    net = create("vgg11", 4, hidden=16, dtype=torch.float64).eval()
    image = torch.rand(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        wanted = net(image).softmax(1)
    found = dense_predict(to_fully_convolutional(net).eval(), image, flip=False)
    torch.testing.assert_close(found, wanted)
