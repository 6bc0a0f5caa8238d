"""Two devices, both the CPU: the network on one, to rounding, and its gradients."""

import pytest
import torch
import torch.nn.functional as F

from fastcnn.models import ModelParallel, create

SMALL = {"hidden": 16, "num_classes": 5, "dtype": torch.float64}


@pytest.mark.parametrize(("network", "devices"), [("alexnet", 2), ("zfnet", 3), ("alexnet_owt", 1)])
def test_it_is_the_network_on_one_device(network, devices):
    net = create(network, **SMALL).eval()
    parallel, x = ModelParallel(net, ["cpu"] * devices), torch.rand(2, 3, 99, 99, dtype=torch.float64).mul(255)
    with torch.no_grad():
        torch.testing.assert_close(parallel(x), net(x))
    assert not parallel.training and parallel.train().training and not net.classifier[1].training
    counts = [sum(p.numel() for p in model.parameters()) for model in (parallel, net)]
    assert counts[0] == counts[1]


def test_a_device_has_half_the_weights_and_half_their_gradients():
    net = create("alexnet", dropout=0.0, **SMALL)
    parallel = ModelParallel(net, ["cpu", "cpu"])
    x, labels = torch.rand(2, 3, 99, 99, dtype=torch.float64).mul(255), torch.tensor([1, 3])
    for model in (net, parallel):
        F.cross_entropy(model(x), labels).backward()
    shared = [layer for layer in parallel.layers if hasattr(layer, "weights")]
    whole = [layer for layer in net.modules() if getattr(layer, "weight", None) is not None]
    assert len(shared) == len(whole) == 8
    # The groups of the second, fourth and fifth convolution need nothing of the other device.
    assert [layer.apart for layer in shared] == [False, True, False, True, True, False, False, False]
    for shares, layer in zip(shared, whole, strict=True):
        first, second = (part.size(0) for part in shares.weights)
        assert first + second == len(layer.weight) and 0 <= first - second <= 1
        torch.testing.assert_close(torch.cat([part.grad for part in shares.weights]), layer.weight.grad)
        torch.testing.assert_close(torch.cat([part.grad for part in shares.biases]), layer.bias.grad)


def test_what_does_not_share_out():
    with pytest.raises(TypeError, match="of a whole AlexNet or VGG that is not fused, got ResNet"):
        ModelParallel(create("resnet18", device="meta"), ["cpu", "cpu"])
    with pytest.raises(TypeError, match="the weights of a BatchNorm2d"):
        ModelParallel(create("vgg11_bn", device="meta"), ["meta", "meta"])
    with pytest.raises(ValueError, match="2 groups do not share out over 3 devices"):
        ModelParallel(create("alexnet", device="meta"), ["meta"] * 3)
    with pytest.raises(ValueError, match=r"devices must be one or more, got \[\]"):
        ModelParallel(create("alexnet", device="meta"), [])
