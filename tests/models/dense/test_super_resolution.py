"""Super-resolution: what the papers say of VDSR and EDSR, and images through them."""

import pytest
import torch
from torch import nn

from fastcnn import models
from fastcnn.models.restoration.edsr import EDSRBlock
from fastcnn.models.restoration.images import bicubic, rgb_to_ycbcr, ycbcr_to_rgb

SMALL = {
    "vdsr": {"layers": 3, "channels": 4},
    **{f"edsr_x{scale}": {"blocks": 2, "channels": 4} for scale in (2, 3, 4)},
}


def zeroed(net):
    with torch.no_grad():
        for value in net.parameters():
            value.zero_()
    return net


def test_counts_are_the_published_ones():
    assert models.count_weights_only(models.create("vdsr", device="meta")) == 664_704
    found = {name: models.count_params(models.create(name, device="meta")) for name in models.list_models("edsr_*")}
    assert found["edsr_baseline_x2"] == 1_369_859
    assert (round(found["edsr_x2"] / 1e6, 2), round(found["edsr_x4"] / 1e6, 2)) == (40.73, 43.09)


def test_vdsr_has_20_layers_and_without_weights_returns_its_input_exactly():
    net = zeroed(models.create("vdsr"))
    assert sum(isinstance(layer, nn.Conv2d) for layer in net.modules()) == 20
    x = torch.rand(2, 1, 9, 14)
    assert torch.equal(net(x), x)


def test_vdsr_adds_what_its_layers_predict(filled):
    net = filled(models.create("vdsr", **SMALL["vdsr"], dtype=torch.float64))
    x = torch.rand(2, 1, 9, 14, dtype=torch.float64)
    first, second = (block[0] for block in net.layers)
    with torch.no_grad():
        torch.testing.assert_close(net(x), x + net.last(second(first(x).relu()).relu()))


def test_edsr_blocks_have_no_norm_and_no_last_relu(filled):
    net = models.create("edsr_x2", device="meta")
    blocks = [module for module in net.modules() if isinstance(module, EDSRBlock)]
    assert len(blocks) == 32 and {block.residual_scale for block in blocks} == {0.1}
    census = [type(layer).__name__ for block in blocks for layer in block.body]
    assert census == ["Conv2d", "ReLU", "Conv2d"] * 32
    assert not any("Norm" in type(module).__name__ for module in net.modules())
    block = filled(EDSRBlock(4, 0.1, dtype=torch.float64))
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    with torch.no_grad():
        wanted = x + 0.1 * block.body[2](block.body[0](x).relu())
        torch.testing.assert_close(block(x), wanted)
    assert (wanted < 0).any()


def test_edsr_subtracts_the_mean_and_adds_it():
    net = zeroed(models.create("edsr_x3", **SMALL["edsr_x3"]))
    assert torch.equal(net(torch.rand(1, 3, 4, 5)), net.mean.expand(1, 3, 12, 15))
    torch.testing.assert_close(net.mean.flatten(), torch.tensor([0.4488, 0.4371, 0.4040]))
    assert not any(key.endswith("mean") for key in net.state_dict())


@pytest.mark.parametrize("network", SMALL)
def test_upscale(network, filled):
    net = filled(models.create(network, **SMALL[network]))
    scale, image = net.row.scale, torch.rand(3, 10, 13, dtype=torch.float64)
    found = net.upscale(image)
    assert found.shape == (3, 10 * scale, 13 * scale) and found.dtype == torch.float64
    assert found.min() >= 0 and found.max() <= 1 and not found.requires_grad
    assert torch.equal(net.upscale(image[None]), found[None])
    if network != "vdsr":
        with torch.no_grad():
            torch.testing.assert_close(net(image[None].float())[0].clamp(0, 1).double(), found)
    for bad in (torch.rand(1, 10, 13), torch.rand(3, 0, 13), torch.rand(10, 13)):
        with pytest.raises(ValueError, match=r"takes images \(3, h, w\) or \(N, 3, h, w\), got \("):
            net.upscale(bad)
    with pytest.raises(TypeError, match="takes floating pixels"):
        net.upscale(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_vdsr_without_weights_upscales_bicubically():
    image = torch.rand(3, 8, 9)
    for options in ({}, {"in_channels": 3}, {"scale": 3}):
        net = zeroed(models.create("vdsr", **SMALL["vdsr"], **options))
        torch.testing.assert_close(net.upscale(image), bicubic(image, net.row.scale).clamp(0, 1), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="upscale needs a network of 1 or 3 channels, this has 2"):
        models.create("vdsr", **SMALL["vdsr"], in_channels=2).upscale(image)


def test_vdsr_changes_luminance_alone(filled):
    net = filled(models.create("vdsr", **SMALL["vdsr"]))
    image = 0.4 + 0.2 * torch.rand(3, 8, 9)
    with torch.no_grad():
        net.last.weight.mul_(0.02)
        net.last.bias.zero_()
    found, plain = rgb_to_ycbcr(net.upscale(image)), rgb_to_ycbcr(bicubic(image, 2))
    torch.testing.assert_close(found[1:], plain[1:], rtol=0, atol=1e-5)
    assert not torch.allclose(found[0], plain[0], atol=1e-3)


def test_networks_of_images_have_no_classes():
    with pytest.raises(ValueError, match="num_classes must be 1, got 5"):
        models.create("vdsr", 5)
    with pytest.raises(ValueError, match="has no classes to replace, got num_classes=5"):
        models.create("edsr_x2", device="meta").replace_head(5)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("vdsr", {"layers": 1}, "layers must be an int of at least 2, got 1"),
        ("vdsr", {"scale": 0}, "scale must be an int of at least 1, got 0"),
        ("edsr_x2", {"scale": 5}, "scale must be 2, 3 or 4, got 5"),
        ("edsr_x2", {"blocks": 0}, "blocks must be a positive int, got 0"),
        ("edsr_x2", {"in_channels": 1}, r"mean must have 1 channels, got \(0.4488"),
        ("edsr_x2", {"pixel_range": 0}, "must be positive, got 0.1, 0"),
    ],
)
def test_bad_options(network, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(network, device="meta", **options)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_exact_on_ramps_inside(scale):
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    image = (0.3 * x - 0.2 * y + 1)[None].double()
    found = bicubic(image, scale)
    y, x = torch.meshgrid(*(((torch.arange(side * scale) + 0.5) / scale - 0.5) for side in (12, 16)), indexing="ij")
    inside = (0, slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))
    wanted = (0.3 * x - 0.2 * y + 1)[None].double()
    assert found.shape == wanted.shape
    torch.testing.assert_close(found[inside], wanted[inside], rtol=0, atol=1e-6)


def test_bicubic_is_keys_cubic_convolution():
    image = torch.zeros(1, 1, 9, dtype=torch.float64)
    image[..., 4] = 1
    found = bicubic(image.expand(1, 9, 9), 2)[0, 8]
    distance = ((torch.arange(18, dtype=torch.float64) + 0.5) / 2 - 0.5 - 4).abs()
    near, far = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    wanted = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    torch.testing.assert_close(found, wanted)


def test_bicubic_shortens_too_and_keeps_constants():
    image = torch.full((2, 3, 12, 9), 0.7)
    assert bicubic(image, 1 / 3).shape == (2, 3, 4, 3)
    torch.testing.assert_close(bicubic(image, 1 / 3), torch.full((2, 3, 4, 3), 0.7))
    with pytest.raises(ValueError, match=r"scale 0.01 makes \(0, 0\) of \(12, 9\)"):
        bicubic(image, 0.01)
    with pytest.raises(TypeError, match="floating"):
        bicubic(image.byte(), 2)
    with pytest.raises(ValueError, match=r"takes \(\.\.\., C, h, w\), got \(3, 4\)"):
        bicubic(torch.rand(3, 4), 2)


def test_ycbcr_is_scikit_images():
    color = pytest.importorskip("skimage.color")
    image = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    wanted = color.rgb2ycbcr(image.movedim(1, -1).numpy()) / 255
    torch.testing.assert_close(rgb_to_ycbcr(image), torch.from_numpy(wanted).movedim(-1, 1))
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(image)), image)
    white = rgb_to_ycbcr(torch.ones(3, 1, 1, dtype=torch.float64)).flatten() * 255
    torch.testing.assert_close(white, torch.tensor([235.0, 128.0, 128.0], dtype=torch.float64))
    for convert in (rgb_to_ycbcr, ycbcr_to_rgb):
        with pytest.raises(ValueError, match=r"takes floating \(\.\.\., 3, h, w\)"):
            convert(torch.rand(4, 5, 5))
