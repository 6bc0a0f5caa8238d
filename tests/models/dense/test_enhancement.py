"""The photo enhancer and the parts of its loss."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastcnn import models
from fastcnn.models.restoration.images import gaussian_window
from fastcnn.models.restoration.losses import (
    WEIGHTS,
    EnhancementLoss,
    FeatureLoss,
    TextureDiscriminator,
    color_loss,
    total_variation,
)
from fastcnn.nn.losses import discriminator_loss, generator_loss


def pair(side=32, dtype=torch.float32):
    return torch.rand(2, 2, 3, side, side, dtype=dtype)


def small_vgg():
    return models.create("vgg11", device="cpu", hidden=1, dtype=torch.float64)


def test_generator_has_twelve_layers_and_its_blocks_sums_have_no_relu(filled):
    net = models.create("dped_generator", device="meta")
    convs = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert [conv.kernel_size[0] for conv in convs] == [9, *[3] * 10, 9]
    assert {conv.out_channels for conv in convs[:-1]} == {64} and len(net.blocks) == 4
    for network, kind in (("dped_generator", nn.BatchNorm2d), ("dped_generator_in", nn.InstanceNorm2d)):
        norms = [m for m in models.create(network, device="meta").modules() if "Norm" in type(m).__name__]
        assert len([m for m in norms if type(m) is kind]) == 8
    net = filled(models.create("dped_generator", channels=4, dtype=torch.float64))
    x = torch.randn(1, 4, 9, 8, dtype=torch.float64)
    block = net.blocks[0]
    with torch.no_grad():
        first, second = block.layers
        hidden = first[1](first[0](x)).relu()
        torch.testing.assert_close(block(x), x + second[1](second[0](hidden)).relu())


def test_enhance(filled):
    net = filled(models.create("dped_generator", channels=8))
    image = torch.rand(3, 12, 17)
    found = net.enhance(image)
    assert found.shape == image.shape and found.min() >= 0 and found.max() <= 1
    with torch.no_grad():
        raw = net(image[None])[0]
    assert raw.min() >= -0.08 - 1e-6 and raw.max() <= 1.08 + 1e-6
    torch.testing.assert_close(raw.clamp(0, 1), found)
    with pytest.raises(ValueError, match=r"takes images \(3, h, w\)"):
        net.enhance(torch.rand(1, 12, 17))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"norm": "layer"}, "norm must be batch or instance, got 'layer'"), ({"blocks": 0}, "blocks must be a positive")],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("dped_generator", device="meta", **options)


def test_features_of_identical_images_are_no_loss_and_the_classifier_is_frozen():
    loss = FeatureLoss(small_vgg(), "conv3_2")
    input, target = pair(dtype=torch.float64)
    input.requires_grad_()
    same = loss(input, input.detach())
    same.backward()
    assert same.item() == 0 and input.grad.isfinite().all()
    input.grad = None
    found = loss(input, target)
    found.backward()
    assert found > 0 and input.grad.isfinite().all() and input.grad.any()
    assert not any(p.requires_grad for p in loss.parameters())
    assert not any(module.training for module in loss.train().modules())
    assert not [key for key in loss.state_dict() if "classifier" in key]


def test_features_are_those_of_normalised_images():
    net = small_vgg()
    input, target = pair(dtype=torch.float64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    with torch.no_grad():
        maps = [
            net.forward_stages((x - mean[:, None, None]) / std[:, None, None], ("conv2_1",))["conv2_1"]
            for x in (input, target)
        ]
        wanted = (maps[0] - maps[1]).square().mean()
        torch.testing.assert_close(FeatureLoss(net, "conv2_1")(input, target), wanted, rtol=1e-6, atol=0)


def test_default_feature_is_of_vgg19_and_others_are_named():
    assert FeatureLoss(models.create("vgg19", device="meta")).feature == "conv5_4"
    with pytest.raises(ValueError, match="has no feature 'conv9'"):
        FeatureLoss(small_vgg(), "conv9")
    loss = FeatureLoss(small_vgg(), "conv1_1")
    with pytest.raises(ValueError, match=r"of one shape, got \(2, 3, 8, 8\) and \(2, 3, 8, 9\)"):
        loss(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 9))


def test_color_loss_by_hand():
    input, target = pair(24, torch.float64)
    y, x = torch.meshgrid(torch.arange(-10.0, 11).double(), torch.arange(-10.0, 11).double(), indexing="ij")
    kernel = 0.053 * torch.exp(-(x**2) / 6 - y**2 / 6)  # Equation 4 with sigma 3.
    weight = kernel.expand(3, 1, 21, 21)
    blurred = F.conv2d(input - target, weight, padding=10, groups=3)
    torch.testing.assert_close(color_loss(input, target), blurred.square().sum() / 2, rtol=3e-3, atol=0)
    assert color_loss(input, input) == 0
    texture = 0.1 * (-1.0) ** torch.arange(24)
    assert color_loss(input + texture, input) < 0.05 * texture.square().sum() * 24 * 3
    with pytest.raises(ValueError, match="color_loss takes two batches"):
        color_loss(input[0], target[0])


def test_gaussian_windows():
    window = gaussian_window(21, math.sqrt(3))
    assert window.sum().item() == pytest.approx(1) and round(window.max().item() ** 2, 3) == 0.053
    for size, sigma in ((4, 1.0), (5, 0.0)):
        with pytest.raises(ValueError, match=f"got {size} and {sigma}"):
            gaussian_window(size, sigma)


def test_total_variation_by_hand():
    image = torch.zeros(2, 1, 2, 3)
    image[0, 0] = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
    assert total_variation(image).item() == pytest.approx(((1 + 9) + (1 + 4)) / 6 / 2)
    assert total_variation(torch.full((1, 3, 5, 5), 0.3)) == 0
    with pytest.raises(ValueError, match=r"takes \(N, C, H, W\), got \(3, 5, 5\)"):
        total_variation(torch.rand(3, 5, 5))


def test_texture_discriminator_sees_greys_alone():
    net = TextureDiscriminator(device="meta")
    assert [conv.stride[0] for conv in net.layers if isinstance(conv, nn.Conv2d)] == [4, 2, 1, 1, 2]
    assert net.fc1.in_features == 128 * 7 * 7 and net.fc1.out_features == 1024
    net = TextureDiscriminator(24, dtype=torch.float64).eval()
    image = 0.2 + 0.5 * torch.rand(2, 3, 24, 24, dtype=torch.float64)
    grey = (image * torch.tensor([0.299, 0.587, 0.114]).double()[:, None, None]).sum(1, keepdim=True)
    with torch.no_grad():
        torch.testing.assert_close(net(grey.expand(-1, 3, -1, -1)), net(image), rtol=1e-6, atol=1e-8)
        assert net(image).shape == (2, 1) and not torch.equal(*net(image))
    with pytest.raises(ValueError, match=r"takes \(N, 3, 24, 24\), got \(2, 3, 25, 24\)"):
        net(torch.rand(2, 3, 25, 24))


def test_a_step_of_the_enhancer(filled):
    net = filled(models.create("dped_generator", channels=4, dtype=torch.float64)).train()
    loss = EnhancementLoss(FeatureLoss(small_vgg(), "conv1_1"))
    judge = TextureDiscriminator(24, dtype=torch.float64)
    phone, camera = pair(24, torch.float64)
    enhanced = net(phone)
    parts = loss(enhanced, camera, judge(enhanced))
    assert set(parts) == {"content", "texture", "color", "variation"}
    assert parts["variation"].item() == pytest.approx(400 * total_variation(enhanced).item())
    sum(parts.values()).backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    same = loss(camera, camera, judge(camera))
    assert same["content"] == 0 and same["color"] == 0
    with pytest.raises(ValueError, match="weights must be of content, texture, color, variation, got content"):
        EnhancementLoss(nn.Identity(), {"content": 1.0})
    assert WEIGHTS["texture"] == 0.4


def test_adversarial_losses_are_cross_entropies_and_finite():
    real, fake = torch.randn(2, 5, 1, dtype=torch.float64)
    wanted = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    wanted = wanted + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
    torch.testing.assert_close(discriminator_loss(real, fake), wanted)
    torch.testing.assert_close(generator_loss(fake), -fake.sigmoid().log().mean())
    assert discriminator_loss(torch.tensor([-1e4]), torch.tensor([1e4])) == 2e4
    assert generator_loss(torch.tensor([-1e4])) == 1e4
