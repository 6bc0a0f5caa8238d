"""One network on several devices, its channels shared out: Krizhevsky et al., NIPS 2012, section 3.2."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcnn.models._plain import PlainNet

Shares = list[Tensor]  # Of the channels of one map, a device's each.


class ModelParallel(nn.Module):
    """AlexNet, or another network of its make, with the kernels and neurons of each layer shared out over devices.

    A convolution with a group for each device needs no maps of the others', which is what the paper's groups are for;
    any other layer with weights takes those of all, and local response normalisation takes its neighbours at the border
    of two shares. Gives what the network on one device gives, up to the order of sums, in training too, but for which
    neurons dropout takes. Copies the layers; begins in the mode that the network is in.

    Args:
        net: :func:`fastcnn.models.create`'s of "alexnet", "zfnet" or a VGG, not fused, with its head.
        devices: of torch, a share each; the input goes to each of them, and the logits come from the first.

    Raises:
        TypeError: another network.
        ValueError: no device, or groups that are not one for each device.
    """

    def __init__(self, net: PlainNet, devices: Sequence[Any]) -> None:
        super().__init__()
        if not isinstance(net, PlainNet) or net.is_fused or net.features_only:
            raise TypeError(
                f"model parallelism is of a whole AlexNet or VGG that is not fused, got {type(net).__name__}"
            )
        self.devices = [torch.device(device) for device in devices]
        if not self.devices:
            raise ValueError(f"devices must be one or more, got {devices!r}")
        self.layers = nn.ModuleList(_shared(layer, self.devices) for layer in _layers(net))
        self.train(net.training)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to logits (N, num_classes) on the first device."""
        shares = [input.to(device) for device in self.devices]
        whole = True  # Until the first layer with weights, each device has all channels.
        for layer in self.layers:
            if isinstance(layer, _Weights):
                shares = layer(shares if whole or layer.apart else _gathered(shares))
                whole = False
            else:
                shares = layer(shares)
        return _gathered(shares)[0]


class _Weights(nn.Module):
    """A layer's share on each device; ``apart`` where each takes its own share of the maps alone."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, devices: Sequence[torch.device]) -> None:
        super().__init__()
        outputs, groups = layer.weight.size(0), getattr(layer, "groups", 1)
        if groups not in (1, len(devices)):
            raise ValueError(f"{groups} groups do not share out over {len(devices)} devices")
        sizes = [len(part) for part in torch.arange(outputs).tensor_split(len(devices))]
        self.apart = groups > 1
        self.options: dict[str, Any] = {}
        if isinstance(layer, nn.Conv2d):
            self.options = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        self.weights = _split(layer.weight, sizes, devices)
        self.biases = None if layer.bias is None else _split(layer.bias, sizes, devices)

    def forward(self, shares: Shares) -> Shares:
        run = F.conv2d if self.options else F.linear
        biases: Sequence[Tensor | None] = [None] * len(shares) if self.biases is None else list(self.biases)
        parts = zip(shares, self.weights, biases, strict=True)
        return [run(share, weight, bias, **self.options) for share, weight, bias in parts]


class _Neighbours(nn.Module):
    """A layer without weights that looks at the channels around."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, shares: Shares) -> Shares:
        sizes = [share.size(1) for share in shares]
        return [self.layer(whole).split(sizes, 1)[index] for index, whole in enumerate(_gathered(shares))]


class _Each(nn.Module):
    """A layer without weights that looks at one channel at a time."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, shares: Shares) -> Shares:
        return [self.layer(share) for share in shares]


def _layers(net: PlainNet) -> Iterator[nn.Module]:
    yield from net.features
    yield net.pool
    yield nn.Flatten()
    yield from net.classifier


def _shared(layer: nn.Module, devices: Sequence[torch.device]) -> nn.Module:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return _Weights(layer, devices)
    if any(True for _ in layer.parameters()):
        raise TypeError(f"model parallelism does not share out the weights of a {type(layer).__name__}")
    layer = copy.deepcopy(layer)
    return _Neighbours(layer) if isinstance(layer, nn.LocalResponseNorm) else _Each(layer)


def _split(tensor: Tensor, sizes: list[int], devices: Sequence[torch.device]) -> nn.ParameterList:
    parts = zip(tensor.detach().split(sizes), devices, strict=True)
    return nn.ParameterList(nn.Parameter(part.to(device, copy=True)) for part, device in parts)


def _gathered(shares: Shares) -> Shares:
    """All channels, on each device."""
    return [torch.cat([share.to(mine.device) for share in shares], 1) for mine in shares]
