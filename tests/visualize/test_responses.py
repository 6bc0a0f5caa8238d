"""The strongest responses among images in which a pattern was put on purpose."""

import pytest
import torch

from fastcnn import models
from fastcnn.visualize import patches, strongest_responses


@pytest.fixture
def net():
    """vgg11 whose channel 7 of conv1 answers to a bright dot with dark pixels around it, and 8 to brightness."""
    net = models.create("vgg11", 2, hidden=4).eval()
    with torch.no_grad():
        net.features[0].weight[7] = -1 / 8
        net.features[0].weight[7, :, 1, 1] = 1
        net.features[0].weight[8] = 1
        net.features[0].bias.zero_()
    return net


def dots():
    """Where the dot is, and how bright: the brighter the stronger."""
    images = torch.zeros(6, 3, 34, 40)
    places = [(5, 9), (0, 0), (33, 39), (20, 21), (30, 2), (11, 11)]
    brightness = [0.5, 0.9, 0.7, 0.2, 0.3, 0.9]
    for image, (row, column), value in zip(images, places, brightness, strict=True):
        image[:, row, column] = value
    return images, places


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_what_and_where(net, batch_size):
    images, places = dots()
    found = strongest_responses(net, images, "conv1_1", 7, 3, batch_size=batch_size)
    assert [each.image for each in found] == [1, 5, 2]  # Of the two equal ones the first.
    assert [(each.row, each.column) for each in found] == [places[1], places[5], places[2]]
    assert [each.score for each in found] == pytest.approx([2.7, 2.7, 2.1], rel=1e-5)
    assert [each.box for each in found] == [(0, 0, 2, 2), (10, 10, 13, 13), (38, 32, 40, 34)]
    what = patches(images, found)
    assert [tuple(patch.shape) for patch in what] == [(3, 2, 2), (3, 3, 3), (3, 2, 2)]
    assert what[1][:, 1, 1].tolist() == pytest.approx([0.9] * 3)


def test_is_what_a_search_over_all_maps_finds(net):
    images = [torch.rand(3, side, 32) for side in (32, 32, 48, 32, 40)]
    found = strongest_responses(net, iter(images), "conv3_2", 9, 4, batch_size=2)
    with torch.no_grad():
        maps = [net.forward_stages(image[None], ("conv3_2",))["conv3_2"][0, 9] for image in images]
    order = sorted(range(5), key=lambda index: -float(maps[index].max()))[:4]
    assert [each.image for each in found] == order
    for each in found:
        assert each.score == pytest.approx(float(maps[each.image].max()), rel=1e-3)
        # The patch holds all that made it, and nothing changes when the rest of the image does.
        x1, y1, x2, y2 = each.box
        other = torch.rand_like(images[each.image])
        other[:, y1:y2, x1:x2] = images[each.image][:, y1:y2, x1:x2]
        with torch.no_grad():
            again = net.forward_stages(other[None], ("conv3_2",))["conv3_2"][0, 9, each.row, each.column]
        assert float(again) == pytest.approx(each.score, rel=1e-4)


def test_fewer_images_than_asked_for(net):
    assert len(strongest_responses(net, dots()[0], "conv1_1", 8, 9)) == 6


@pytest.mark.parametrize(
    ("images", "arguments", "message"),
    [
        ([], ("conv1_1", 0), "at least one image"),
        (torch.rand(1, 32, 32), ("conv1_1", 0), r"images must be \(C, H, W\) each, got \(32, 32\)"),
        (torch.rand(1, 1, 32, 32), ("conv1_1", 0), r"VGG takes \(N, 3, H, W\)"),
        (torch.rand(1, 3, 32, 32), ("conv1_1", 64), "conv1_1 has channels 0 to 63, got 64"),
        (torch.rand(1, 3, 32, 32), ("conv1_1", 0, 0), "k and batch_size must be at least 1, got 0"),
        (torch.rand(1, 3, 32, 32), ("conv11", 0), "did you mean"),
    ],
)
def test_bad_arguments(net, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        strongest_responses(net, images, *arguments)
