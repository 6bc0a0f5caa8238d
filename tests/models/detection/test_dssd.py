"""DSSD's maps, and which of them know of which."""

import pytest
import torch

from fastcnn import models
from fastcnn.models.detection.dssd import DeconvolutionModule, ProjectedBottleneck, Window

SIDES = {321: (40, 20, 10, 5, 3, 1), 513: (64, 32, 16, 8, 4, 2, 1)}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", ["ssd", "dssd"])
def test_maps(family, side):
    """40, 20, 10, 5, 3 and 1 pixel of 321, each with eight boxes."""
    net = models.create(f"{family}{side}_resnet101", device="meta").eval()
    maps = net.backbone(torch.empty(1, 3, side, side, device="meta"))
    assert tuple(m.size(3) for m in maps) == tuple(m.size(2) for m in maps) == SIDES[side]
    assert net.row.boxes.per_position() == (8,) * len(maps)
    channels = [m.size(1) for m in maps]
    assert channels == ([512, 2048] + [1024] * (len(maps) - 2) if family == "ssd" else [1024] * len(maps))


def test_finer_maps_know_the_coarser_ones_only_in_dssd():
    options = {"backbone_options": (("layers", (1, 1, 1, 1)), ("replace_stride_with_dilation", (False, False, True)))}
    for family, learns in (("ssd", False), ("dssd", True)):
        net = models.create(f"{family}321_resnet101", **options)
        finest = net.backbone(torch.rand(2, 3, 321, 321))[0]
        finest.square().sum().backward()
        gradient = net.backbone.extra[-1].shortcut[0].weight.grad
        assert (gradient is not None and bool(gradient.any())) == learns


def test_modules():
    """A product, which a map of zeros makes zero, and a sum, which it does not."""
    coarse, fine = torch.rand(2, 6, 3, 3), torch.rand(2, 5, 5, 5)
    module = DeconvolutionModule(6, 5, Window(3, 1)).eval()
    found = module(coarse, fine)
    assert found.shape == (2, 512, 5, 5) and found.any()
    assert not module(coarse, fine * 0).any()
    module.coarse.deconvolution.bias.data.zero_()
    assert not module(coarse * 0, fine).any()
    for window, sides in ((Window(1, 1), (5, 5)), (Window(2, 2), (2, 2)), (Window(3, 1), (3, 3))):
        block = ProjectedBottleneck(5, window).eval()
        found = block(fine)
        assert found.shape == (2, 1024, *sides)
        torch.testing.assert_close(found, (block.branch(fine) + block.shortcut(fine)).clamp(min=0))
