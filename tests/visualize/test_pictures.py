"""Pictures, pixel by pixel."""

import pytest
import torch

from fastcnn import models
from fastcnn.visualize import colour_map, first_layer_kernels, grid, overlay, signed_picture


def test_colours_run_from_blue_to_red():
    found = colour_map(torch.linspace(-2, 6, 5)[None])
    assert found.dtype == torch.uint8
    assert found[:, 0].T.tolist() == [[0, 0, 128], [0, 128, 255], [128, 255, 128], [255, 128, 0], [128, 0, 0]]
    assert colour_map(torch.zeros(2, 3)).unique().tolist() == [0, 128]
    with pytest.raises(ValueError, match="finite"):
        colour_map(torch.full((2, 2), torch.nan))


def test_overlay_mixes():
    image = torch.full((3, 4, 6), 100, dtype=torch.uint8)
    heat = torch.tensor([[0.0, 1.0]])
    assert torch.equal(overlay(image, heat, 0.0), image)
    full = overlay(image, heat, 1.0)
    assert full[:, 0, 0].tolist() == [0, 0, 128] and full[:, 3, 5].tolist() == [128, 0, 0]
    assert overlay(image, heat)[:, 0, 0].tolist() == [50, 50, 114]
    with pytest.raises(ValueError, match=r"image must be uint8 \(3, H, W\), got torch.float32"):
        overlay(image.float(), heat)
    with pytest.raises(ValueError, match=r"opacity in \[0, 1\]"):
        overlay(image, heat, 2.0)


def test_signs():
    found = signed_picture(torch.tensor([[[-2.0, 0.0, 1.0, 2.0]]]))
    assert found.shape == (3, 1, 4) and found[1, 0].tolist() == [0, 128, 191, 255]
    assert signed_picture(torch.zeros(3, 2, 2)).unique().tolist() == [128]
    with pytest.raises(ValueError, match="1 or 3 channels"):
        signed_picture(torch.zeros(2, 2, 2))


def test_grid_places_tiles():
    tiles = [torch.full((3, 2, 3), value, dtype=torch.uint8) for value in (10, 20, 30)]
    found = grid(tiles, 2, scale=2)
    assert found.shape == (3, 2 * 5 + 1, 2 * 7 + 1)
    assert found[0, 1:5, 1:7].unique().tolist() == [10] and found[0, 1:5, 8:14].unique().tolist() == [20]
    assert found[0, 6:10, 1:7].unique().tolist() == [30] and found[0, 6:10, 7:].unique().tolist() == [255]
    assert found[:, (0, 5, 10)].unique().tolist() == [255]
    with pytest.raises(ValueError, match="needs tiles"):
        grid([], 2)


def test_alexnets_kernels_are_two_halves_of_48():
    net = models.create("alexnet", 2, hidden=4)
    found = first_layer_kernels(net, scale=1)
    half = (3, 3 * 12 + 1, 16 * 12 + 1)
    assert found.shape == (3, 2 * (half[1] + 1) + 1, half[2] + 2)
    kernels = net.features[0].weight.detach()
    for index in (0, 17, 47, 48, 95):
        top = 2 + (half[1] + 1) * (index // 48) + (index % 48) // 16 * 12
        left = 2 + index % 16 * 12
        assert torch.equal(found[:, top : top + 11, left : left + 11], signed_picture(kernels[index]))


def test_kernels_of_any_network():
    assert first_layer_kernels(models.create("lenet5"), columns=3, scale=2).shape == (3, 2 * 11 + 1, 3 * 11 + 1)
    assert first_layer_kernels(models.create("mobilenet_v2", 2, width_mult=0.35), scale=1).shape == (3, 5, 65)
    with pytest.raises(ValueError, match=r"of 1 or 3 channels, got \[\(64, 5, 7, 7\)\]"):
        first_layer_kernels(models.create("resnet18", 2, in_channels=5))
