"""A small fused network, run as one and layer by layer.

With gradients on, a fused network runs PyTorch's functions layer by layer: that is what the plan is compared with.
"""

import torch
from torch import nn

from fastcnn.nn import ConvNormAct, ConvSequence, fold_conv_norm

X = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
STEM, EXPAND, DEPTHWISE, PROJECT, DENSE, DILATED, LINEAR = "0.0", "1.0.0", "1.1.0", "1.2.0", "2.0", "4.0", "7"


def build():
    torch.manual_seed(0)
    net = ConvSequence(
        ConvNormAct(3, 24, 3, 2),
        ConvSequence(
            ConvNormAct(24, 48, 1, act=nn.ReLU6),
            ConvNormAct(48, 48, 3, groups=48, act=nn.Hardswish),
            ConvNormAct(48, 24, 1, act=None),
        ),
        ConvNormAct(24, 32, 3, act=nn.SiLU),
        nn.Dropout(0.5),
        ConvNormAct(32, 40, 3, dilation=2, padding=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(40, 20),
    )
    for parameter in net.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)
    return fold_conv_norm(net.eval())


def fused(net, *inputs):
    with torch.no_grad():
        return net(*inputs)


def unfused(net, *inputs):
    with torch.enable_grad():
        return net(*inputs).detach()


def that_has_run():
    """That has run, so that it keeps a plan and packed weights."""
    net = build()
    fused(net, X)
    assert "_plan" in net.__dict__ and "_kept" in net.get_submodule(DENSE).__dict__
    return net


def assert_same(net, *inputs):
    found, wanted = fused(net, *inputs), unfused(net, *inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)
    return found


def spread_biases(net):
    for parameter in net.parameters():
        if parameter.dim() == 1:
            parameter.data = torch.randn(2 * len(parameter))[::2]


def scale(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.25)


def scale_data(net):
    for parameter in net.parameters():
        parameter.data.mul_(1.25)
    net.eval()  # PyTorch does not count such changes.


def set_data(net):
    for parameter in net.parameters():
        parameter.data = parameter.data * 1.25


def load(net, **options):
    net.load_state_dict({key: value * 1.25 for key, value in net.state_dict().items()}, **options)


class Twice(nn.Module):
    def forward(self, weight):
        return 2 * weight
