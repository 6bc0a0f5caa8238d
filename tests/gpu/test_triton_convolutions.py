"""What Triton's compiler makes of the kernels of convolutions: as test_triton_offline.py, by what launchers launch."""

from importlib import import_module
from importlib.util import find_spec
from math import prod
from unittest import mock

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed: pip install 'fastcnn[triton]'", allow_module_level=True)

from test_triton_offline import ARCHITECTURES, Budget, assert_is_within

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# The sides of what a program has in its lanes.
SIDES = {
    "_grouped.convolve": ("COLUMNS", "POSITIONS", "TOGETHER"),
    "_grouped.pack": ("BLOCK",),
    "_grouped_weight.grad_weight": ("COLUMNS", "DEPTH", "TAPS"),
    "_depthwise.correlate": ("QUEUE", "DOWN", "ACROSS"),
    "_depthwise.grad_weight": ("QUEUE", "DOWN", "ACROSS"),
    "_depthwise.reduce": ("DOWN", "ACROSS"),
}


def launched(name: str, launcher: str, call, dtype: str, what: str, bounds: tuple[float, ...], stack: int) -> Budget:
    """Of the kernel of this name that `call` launches, by the `launch` of the module `launcher`."""
    launches = {}

    def launch(kernel, programs, device, *args, **options):
        launches[kernel.__name__] = kernel, args, options

    with mock.patch.object(import_module(f"fastcnn.kernels.{launcher}"), "launch", launch):
        call()
    kernel, args, options = launches[f"{name}_kernel"]
    given = dict(zip([p for p in kernel.params if not p.is_constexpr], args, strict=True))
    types = tuple((p.name, NAMES[n.dtype]) for p, n in given.items() if torch.is_tensor(n))
    numbers = {p.name: n for p, n in given.items() if not (p.do_not_specialize or torch.is_tensor(n))}
    constants = {name: n for name, n in options.items() if name.isupper()}
    constants |= {name: n for name, n in numbers.items() if n in (1, None)}
    path = f"{kernel.__module__.rpartition('.')[2]}.{name}"
    registers, load, per_output, shared = bounds
    return Budget(
        path,
        dtype,
        constants,
        registers,
        load,
        per_output,
        shared,
        types,
        prod(options[side] for side in SIDES[path]) // (32 * options["num_warps"]),
        options["num_warps"],
        tuple(name for name, n in numbers.items() if n and n % 16 == 0),
        options.get("num_stages", 3),
        stack,
        options.get("enable_fp_fusion", True),
        what,
    )


def maps(dtype: str, images: int, channels: int, out: int, side: int, size: int, step: int, last: bool):
    """The input of a convolution padded by half the kernel, and its result."""
    layout = torch.channels_last if last else torch.contiguous_format
    options = {"dtype": DTYPES[dtype], "device": "meta", "memory_format": layout}
    area = ((side + size // 2 * 2 - size) // step + 1,) * 2
    return torch.empty(images, channels, side, side, **options), torch.empty(images, out, *area, **options)


def grouped(kernel: str, which: str, dtype: str, layer: str, *bounds: float, last: bool = True, stack: int = 0):
    """Of a layer "N C side out groups kernel stride shuffle_groups"; bounds: registers, load, per_output, shared."""
    images, channels, side, out, groups, size, step, shuffle = map(int, layer.split())
    x, y = maps(dtype, images, channels, out, side, size, step, last)
    weight = x.new_empty(out, channels // groups, size, size)
    window = ((step, step), (size // 2, size // 2), (1, 1), groups, shuffle)
    functions = import_module("fastcnn.kernels.grouped_conv2d_shuffle")
    calls = {
        "forward": lambda: functions.grouped_conv2d_shuffle(x, weight, weight.new_empty(out), *window, True),
        "grad_input": lambda: functions.grouped_conv2d_shuffle_backward_input(y, weight, x.shape, *window, last),
        "grad_weight": lambda: functions.grouped_conv2d_shuffle_backward_weight(y, x, weight.shape, *window),
    }
    what = f"{which}-{layer}-{'NHWC' if last else 'NCHW'}"
    return launched(kernel, "_grouped_launch", calls[which], dtype, what, bounds, stack)


def depthwise(kernel: str, which: str, dtype: str, layer: str, *bounds: float, last: bool = True, stack: int = 0):
    """Of a layer "N C side kernel stride" with bias and, forward, hardswish; bounds as above."""
    images, channels, side, size, step = map(int, layer.split())
    x, y = maps(dtype, images, channels, channels, side, size, step, last)
    weight = x.new_empty(channels, 1, size, size)
    window = ([step] * 2, [size // 2] * 4, [1, 1])
    needed = (which == "grad_input", which == "grad_weight", which == "grad_weight")
    functions = import_module("fastcnn.kernels.depthwise_conv2d")

    def call():
        if which == "forward":
            functions.depthwise_conv2d(x, weight, weight.new_empty(channels), *window, 4)
        else:
            functions.depthwise_conv2d_backward(y, x, weight, *window, *needed)

    what = f"{which}-{layer}-{'NHWC' if last else 'NCHW'}"
    return launched(kernel, "depthwise_conv2d", call, dtype, what, bounds, stack)


BUDGETS = [
    grouped("convolve", "forward", "fp16", "32 128 56 128 32 3 1 1", 173, 16, 64, 11300),
    grouped("convolve", "forward", "bf16", "32 128 56 128 32 3 1 1", 140, 4, 138, 5100, last=False),
    grouped("convolve", "forward", "fp32", "32 256 28 256 32 3 1 1", 141, 16, 118, 10200, stack=11),
    grouped("convolve", "forward", "bf16", "32 1024 14 1024 32 3 1 1", 88, 16, 26, 11300),
    grouped("convolve", "forward", "fp16", "32 240 28 240 3 1 1 3", 135, 16, 38, 18100),
    grouped("convolve", "forward", "fp32", "32 384 28 96 8 1 1 8", 185, 16, 50, 5700),
    grouped("convolve", "forward", "bf16", "32 240 28 60 3 1 1 3", 101, 16, 35, 17000, last=False),
    grouped("convolve", "forward", "fp16", "32 12 1 6 2 1 1 2", 80, 4, 93, 8500),
    grouped("convolve", "forward", "fp32", "1 2 1 2 2 1 1 1", 128, 8, 116, 10200, last=False, stack=4),
    grouped("convolve", "grad_input", "fp16", "32 256 56 256 32 3 2 1", 165, 16, 64, 11300, stack=3),
    grouped("convolve", "grad_input", "fp32", "32 240 28 240 3 1 1 3", 80, 16, 50, 10200, last=False),
    grouped("grad_weight", "grad_weight", "fp16", "32 128 56 128 32 3 1 1", 167, 16, 45, 4600),
    grouped("grad_weight", "grad_weight", "fp32", "32 128 56 128 32 3 1 1", 157, 16, 166, 4600, last=False),
    grouped("grad_weight", "grad_weight", "bf16", "32 240 28 240 3 1 1 3", 141, 16, 51, 18100),
    grouped("pack", "forward", "fp16", "32 128 56 128 32 3 1 1", 57, 2, 97, 0),
    grouped("pack", "grad_input", "fp32", "32 256 56 256 32 3 2 1", 54, 4, 98, 0),
    depthwise("correlate", "forward", "fp16", "32 128 56 3 1", 117, 16, 32, 0),
    depthwise("correlate", "grad_input", "fp16", "32 128 56 3 1", 117, 16, 17, 0),
    depthwise("grad_weight", "grad_weight", "fp16", "32 128 56 3 1", 211, 16, 63, 1200),
    depthwise("correlate", "forward", "fp16", "32 128 56 3 1", 71, 2, 84, 0, last=False, stack=7),
    depthwise("correlate", "grad_input", "fp16", "32 128 56 3 1", 71, 2, 67, 0, last=False),
    depthwise("grad_weight", "grad_weight", "fp16", "32 128 56 3 1", 104, 2, 128, 18, last=False, stack=18),
    depthwise("correlate", "forward", "fp32", "32 128 56 3 2", 86, 16, 43, 0),
    depthwise("correlate", "grad_input", "fp32", "32 128 56 3 2", 62, 16, 29, 0),
    depthwise("grad_weight", "grad_weight", "fp32", "32 128 56 3 2", 152, 16, 77, 564, stack=3),
    depthwise("correlate", "forward", "fp32", "32 128 56 3 2", 80, 4, 93, 1200, last=False),
    depthwise("correlate", "grad_input", "fp32", "32 128 56 3 2", 62, 4, 89, 1200, last=False),
    depthwise("grad_weight", "grad_weight", "fp32", "32 128 56 3 2", 139, 4, 151, 1200, last=False),
    depthwise("correlate", "forward", "fp16", "32 128 56 5 1", 212, 16, 31, 0),
    depthwise("correlate", "grad_input", "fp16", "32 128 56 5 1", 247, 16, 17, 0),
    depthwise("grad_weight", "grad_weight", "fp16", "32 128 56 5 1", 180, 16, 26, 1200),
    depthwise("correlate", "forward", "fp16", "32 128 56 5 1", 132, 2, 70, 0, last=False),
    depthwise("correlate", "grad_input", "fp16", "32 128 56 5 1", 117, 2, 54, 0, last=False),
    depthwise("grad_weight", "grad_weight", "fp16", "32 128 56 5 1", 80, 2, 62, 18, last=False),
    depthwise("correlate", "forward", "bf16", "32 128 56 7 1", 222, 16, 36, 0),
    depthwise("correlate", "grad_input", "bf16", "32 128 56 7 1", 215, 16, 21, 0),
    depthwise("grad_weight", "grad_weight", "bf16", "32 128 56 7 1", 192, 16, 34, 1200),
    depthwise("correlate", "forward", "bf16", "32 128 56 7 1", 141, 2, 77, 0, last=False),
    depthwise("correlate", "grad_input", "bf16", "32 128 56 7 1", 130, 2, 61, 0, last=False),
    depthwise("grad_weight", "grad_weight", "bf16", "32 128 56 7 1", 97, 2, 72, 18, last=False),
    depthwise("reduce", "grad_weight", "fp16", "32 128 56 3 1", 44, 4, 36, 564),
    grouped("reduce", "grad_weight", "fp32", "32 128 56 128 32 3 1 1", 36, 4, 28, 564),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_is_within_budget(budget, architecture, tmp_path):
    assert_is_within(budget, architecture, tmp_path)
