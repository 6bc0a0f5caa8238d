"""DCGAN: figure 1's shapes, images from noise, and that the two learn from one another."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fastcnn import models
from fastcnn.nn.losses import discriminator_loss, generator_loss

SMALL = {"channels": (16, 8), "out_channels": 3, "in_channels": 6}


def test_generator_is_figure_1():
    traced = models.trace_shapes("dcgan_generator")
    convs = [(path, shape) for path, shape in traced if path.endswith(".0") or path == "last"]
    assert convs == [
        ("project.0", (1, 1024, 4, 4)),
        ("layers.0.0", (1, 512, 8, 8)),
        ("layers.1.0", (1, 256, 16, 16)),
        ("layers.2.0", (1, 128, 32, 32)),
        ("last", (1, 3, 64, 64)),
    ]
    net = models.create("dcgan_generator", device="meta")
    strided = [layer for layer in net.modules() if isinstance(layer, nn.ConvTranspose2d) and layer.stride == (2, 2)]
    assert len(strided) == 4 and {layer.kernel_size for layer in strided} == {(5, 5)}
    assert not any(isinstance(layer, nn.Linear | nn.MaxPool2d) for layer in net.modules())
    widths = ((100, 1024, 16), (1024, 512, 25), (512, 256, 25), (256, 128, 25), (128, 3, 25))
    params = sum(a * b * area for a, b, area in widths) + 2 * (1024 + 512 + 256 + 128) + 3
    assert models.summary("dcgan_generator").params == params == 18_855_043


def test_generated_images(filled):
    net = filled(models.create("dcgan_generator", **SMALL))
    z = torch.rand(3, 6).mul(2).sub(1)
    with torch.no_grad():
        images = net(z)
        assert images.shape == (3, 3, 16, 16) and images.abs().max() <= 1
        assert torch.equal(net(z[..., None, None]), images)
        torch.testing.assert_close(net(z[:1]), images[:1])
        projected = (z @ net.project[0].weight.flatten(1)).reshape(3, 16, 4, 4)
        torch.testing.assert_close(net.project[0](z[..., None, None]), projected)
        torch.testing.assert_close(copy.deepcopy(net).fuse()(z), images, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"takes \(N, 6, H, W\), got \(3, 7, 1, 1\)"):
        net(torch.rand(3, 7))


def test_discriminator():
    traced = [(path, shape) for path, shape in models.trace_shapes("dcgan_discriminator") if path.endswith(".0")]
    assert [shape for _, shape in traced] == [(1, 128 * 2**i, 32 // 2**i, 32 // 2**i) for i in range(4)]
    net = models.create("dcgan_discriminator", device="meta")
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules()) == 3
    assert {m.negative_slope for m in net.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    params = 25 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024) + 128 + 2 * (256 + 512 + 1024) + 1024 * 16 + 1
    assert models.count_params(net) == params == 17_232_897
    with pytest.raises(ValueError, match=r"takes maps of \(4, 4\), got \(8, 8\)"):
        net(torch.empty(1, 3, 128, 128, device="meta"))


@pytest.mark.parametrize("network", ["dcgan_generator", "dcgan_discriminator"])
def test_seeds_options_and_files(network, tmp_path):
    net = models.create(network, device="meta", dtype=torch.bfloat16)
    assert {value.dtype for value in net.parameters()} == {torch.bfloat16}
    options = {"channels": (8, 4)}
    torch.manual_seed(1)
    first = models.create(network, **options)
    torch.manual_seed(1)
    second = models.create(network, **options).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.state_dict().items())
    path = "last" if network == "dcgan_generator" else "layers.1.0"
    assert first.get_submodule(path).weight.std().item() == pytest.approx(0.02, rel=0.15)
    torch.save(first.state_dict(), tmp_path / "w.pth")
    loaded = models.create(network, weights=tmp_path / "w.pth", **options).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in first.state_dict().items())
    with pytest.raises(ValueError, match="channels must be positive ints, one or more, got"):
        models.create(network, channels=(), device="meta")


def test_each_learns_from_the_other():
    """A step of each lowers its own loss, and reaches every parameter."""
    generator = models.create("dcgan_generator", **SMALL)
    judge = models.create("dcgan_discriminator", channels=(8, 16))
    z, real = torch.rand(8, 6).mul(2).sub(1), torch.rand(8, 3, 16, 16).mul(0.2)

    def judged():
        return discriminator_loss(judge(real), judge(generator(z).detach()))

    def drawn():
        return generator_loss(judge(generator(z)))

    for net, loss in ((judge, judged), (generator, drawn)):
        before = loss()
        net.zero_grad()
        before.backward()
        assert all(p.grad is not None and p.grad.any() for p in net.parameters())
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.01 * p.grad
        assert loss() < before


def test_fractional_strides_are_the_gradient_of_strided_convolutions(filled):
    conv = filled(models.create("dcgan_generator", **SMALL, dtype=torch.float64)).layers[0][0]
    x = torch.randn(1, 16, 4, 4, dtype=torch.float64)
    image = torch.zeros(1, 8, 8, 8, dtype=torch.float64, requires_grad=True)
    F.conv2d(image, conv.weight, stride=2, padding=2).backward(x)
    torch.testing.assert_close(conv(x), image.grad)
