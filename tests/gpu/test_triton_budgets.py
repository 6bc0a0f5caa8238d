"""What Triton's compiler makes of the kernels of whole ops: as test_triton_offline.py, one row for each variant."""

from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from math import prod
from unittest import mock

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed: pip install 'fastcnn[triton]'", allow_module_level=True)

import triton
from test_triton_offline import ARCHITECTURES, compile_offline, measure

from fastcnn.kernels import _grouped_launch
from fastcnn.kernels._configs import (
    FOCAL,
    LRN,
    SOFTMAX_FOCAL,
    SQUEEZE_IMAGES,
    SQUEEZE_TERMS,
    SQUEEZE_WEIGHTS,
    squeeze_layer,
    squeeze_map_tile,
    squeeze_width,
)

FLOATS = {"background", "difference", "gamma", "divisor", "scale", "k", "beta", "factor"}


@dataclass(frozen=True)
class Budget:
    """Upper bounds over Triton 3.6 to 3.9 and all architectures, about a tenth above what they give.

    kernel: ``module.kernel`` of `fastcnn.kernels`; `constants`, what it is compiled for; `pointers`, those that are not
        of the dtype of the row.
    registers: per thread.
    load: bytes of a lane's widest load, a lower bound.
    per_output: instructions of the whole program, all of its branches, over the elements a lane has.
    shared: bytes of shared memory.
    stack: bytes of it, which hold predicates where there are more of them than registers for them.
    """

    kernel: str
    dtype: str
    constants: dict[str, int]
    registers: int
    load: int
    per_output: float
    shared: int = 0
    pointers: tuple[tuple[str, str], ...] = ()
    elements: int = 8
    num_warps: int = 4
    multiples: tuple[str, ...] = ()
    num_stages: int = 3
    stack: int = 0
    what: str = ""


def focal(dtype: str, width: int, **more: int) -> dict[str, int]:
    """Dense targets at a width of 0, else groups of classes."""
    groups = FOCAL[int(dtype[2:]) // 8].block // (width or 1)
    return {"DENSE": width == 0, "POWER": 2, "GROUPS": groups, "WIDTH": width or 1, **more}


def sigmoid(kernel: str, dtype: str, width: int, registers: int, per_output: float, shared: int = 0, **more: int):
    constants = focal(dtype, width, **more)
    pointers = [("target_ptr", "i64")] * (width > 0) + [("partial_ptr", "fp32")]
    elements = FOCAL[int(dtype[2:]) // 8].block // 128
    name = f"sigmoid_focal_loss.{kernel}"
    return Budget(name, dtype, constants, registers, 16, per_output, shared, tuple(pointers), elements)


def lrn(kernel: str, dtype: str, last: bool, registers: int, load: int, per_output: float, power: str = "3/4"):
    tile = LRN[last]
    constants = {"BEFORE": 2, "AFTER": 2, "POWER": power, "LAST": last}
    constants |= {"CHANNELS": tile.channels, "PIXELS": tile.pixels}
    elements = tile.channels * tile.pixels // (32 * tile.num_warps)
    multiples = ("channels", "pixels")
    name = f"local_response_norm.{kernel}"
    return Budget(name, dtype, constants, registers, load, per_output, 0, (), elements, tile.num_warps, multiples)


def softmax(kernel: str, dtype: str, rows: bool, registers: int, load: int, per_output: float, **more: int):
    tile = SOFTMAX_FOCAL[rows]
    constants = {"WEIGHTED": False, "POWER": 2, "ROWS": rows, "CLASSES": tile.channels, "POSITIONS": tile.pixels}
    pointers = (("target_ptr", "i64"), ("alpha_ptr", "fp32"), ("count_ptr", "i64"))
    elements = tile.channels * tile.pixels // (32 * tile.num_warps)
    name = f"softmax_focal_loss.{kernel}"
    multiples = ("classes", "pixels")
    constants |= more
    return Budget(name, dtype, constants, registers, load, per_output, 1024, pointers, elements, 4, multiples)


NARROW = tuple((f"{name}_ptr", "fp32") for name in ("partial", "saved", "grads"))


def squeeze_map(kernel: str, dtype: str, last: bool, registers: int, per_output: float, shared: int, **more):
    """Passes over maps of squeeze_excite."""
    tile = squeeze_map_tile(last, int(dtype[2:]) // 8, 960, 784)
    constants = {"LAST": last, "CHANNELS": tile.channels, "PIXELS": tile.pixels, "CHANNELS_UNIT": 8, "PIXELS_UNIT": 8}
    elements = tile.channels * tile.pixels // (32 * tile.num_warps)
    if kernel == "scale":
        constants |= {"HIDDEN_UNIT": 8, "IMAGES": SQUEEZE_IMAGES, "WIDTH": squeeze_width(240), "HARD": False}
        elements *= SQUEEZE_IMAGES
    constants |= more
    name = f"_squeeze.{kernel}"
    return Budget(name, dtype, constants, registers, 16, per_output, shared, NARROW, elements, tile.num_warps)


def squeeze(dtype: str, channels: int, registers: int, per_output: float, shared: int, **more):
    layer = squeeze_layer(channels)
    constants = {"SILU": True, "HARD": False, "CHANNELS_UNIT": 8, "HIDDEN_UNIT": 8, "IMAGES": SQUEEZE_IMAGES}
    constants |= {"ROWS": layer.rows, "WIDTH": layer.width, **more}
    elements = SQUEEZE_IMAGES * layer.rows * layer.width // (32 * layer.num_warps)
    name = "_squeeze.squeeze"
    return Budget(name, dtype, constants, registers, 16, per_output, shared, NARROW, elements, layer.num_warps)


def squeeze_weights(dtype: str, registers: int, per_output: float, shared: int):
    tile = SQUEEZE_WEIGHTS
    constants = {"SILU": True, "IMAGES": SQUEEZE_TERMS, "ROWS": tile.rows, "WIDTH": tile.width}
    elements = tile.rows * tile.width // (32 * tile.num_warps)
    name = "_squeeze.weights"
    return Budget(name, dtype, constants, registers, 4, per_output, shared, NARROW, elements, tile.num_warps)


FORWARD, BACKWARD = {"BACKWARD": False, "grads_ptr": None}, {"BACKWARD": True, "bias_ptr": None}


def grouped(which: str, dtype: str, layer: str, registers: int, load: int, per_output: float, shared: int, last=True):
    """What the launchers launch for a layer: "N C side out groups kernel stride shuffle_groups"."""
    images, channels, side, out, groups, size, step, shuffle = map(int, layer.split())
    launches = []
    options = {
        "dtype": {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype],
        "device": "meta",
    }
    layout = torch.channels_last if last else torch.contiguous_format
    x = torch.empty(images, channels, side, side, **options, memory_format=layout)
    weight = torch.empty(out, channels // groups, size, size, **options)
    window = ((step, step), (size // 2, size // 2), (1, 1), groups, shuffle)
    functions = import_module("fastcnn.kernels.grouped_conv2d_shuffle")
    with mock.patch.object(_grouped_launch, "launch", lambda *args, **options: launches.append((args, options))):
        y = functions.grouped_conv2d_shuffle(x, weight, weight.new_empty(out), *window, True)
        if which != "forward":
            launches.clear()
        if which == "backward_input":
            functions.grouped_conv2d_shuffle_backward_input(y, weight, x.shape, *window, last)
        if which == "backward_weight":
            functions.grouped_conv2d_shuffle_backward_weight(y, x, weight.shape, *window)
    (kernel, _, _, *args), options = launches[0 if which == "backward_weight" else -1]
    warps, stages = options.pop("num_warps"), options.pop("num_stages")
    given = dict(zip([p for p in kernel.params if not p.is_constexpr], args, strict=True))
    numbers = {p.name: n for p, n in given.items() if not (p.do_not_specialize or torch.is_tensor(n))}
    constants = {name: n for name, n in options.items() if name.isupper()}
    constants |= {name: n for name, n in numbers.items() if n in (1, None)}
    sides = ("COLUMNS", "DEPTH", "TAPS") if which == "backward_weight" else ("COLUMNS", "POSITIONS", "TOGETHER")
    return Budget(
        "_grouped_weight.grad_weight" if which == "backward_weight" else "_grouped.convolve",
        dtype,
        constants,
        registers,
        load,
        per_output,
        shared,
        (("partial_ptr", "fp32"),),
        prod(options[side] for side in sides) // (32 * warps),
        warps,
        tuple(k for k, n in numbers.items() if n and n % 16 == 0),
        stages,
        32,
        f"{which}-{layer}-{'NHWC' if last else 'NCHW'}",
    )


NUMBER = {"COUNTED": False, "EACH": False}
BUDGETS = [
    sigmoid("forward", "fp16", 0, 49, 114),
    sigmoid("forward", "bf16", 8, 42, 153),
    sigmoid("forward", "fp32", 4, 39, 176),
    sigmoid("forward", "fp32", 1, 53, 250, 4096, DENSE=False),
    sigmoid("sum", "fp32", 0, 44, 142, 16),
    sigmoid("sum", "bf16", 8, 73, 172, 16),
    sigmoid("backward", "fp16", 0, 84, 139, **NUMBER),
    sigmoid("backward", "bf16", 8, 71, 180, **NUMBER),
    sigmoid("backward", "fp32", 4, 41, 206, **NUMBER),
    sigmoid("backward", "fp32", 0, 37, 144, COUNTED=False, EACH=True),
    lrn("forward", "fp16", False, 40, 16, 41),
    lrn("forward", "fp32", False, 53, 16, 44),
    lrn("forward", "bf16", True, 36, 16, 46),
    lrn("forward", "fp32", True, 44, 16, 66, "any"),
    lrn("backward", "bf16", False, 132, 16, 149),
    lrn("backward", "fp32", False, 161, 16, 152),
    lrn("backward", "fp16", True, 141, 16, 154),
    lrn("backward", "fp32", True, 147, 16, 134),
    softmax("forward", "fp16", False, 141, 8, 238, SUM=False),
    softmax("forward", "fp32", False, 87, 8, 154, SUM=True),
    softmax("forward", "bf16", True, 43, 16, 50, SUM=True),
    softmax("backward", "bf16", False, 157, 8, 307, COUNTED=True, EACH=False),
    softmax("backward", "fp32", True, 53, 16, 92, COUNTED=True, EACH=False),
    squeeze_map("pool", "fp16", False, 55, 22, 256, grad_ptr=None),
    squeeze_map("pool", "bf16", True, 44, 27, 2048),
    squeeze_map("pool", "fp32", False, 36, 34, 128),
    squeeze_map("pool", "fp32", True, 36, 37, 1024, grad_ptr=None),
    squeeze_map("scale", "bf16", False, 128, 23, 256, SILU=True, **FORWARD),
    squeeze_map("scale", "fp16", False, 255, 41, 256, SILU=True, PIXELS_UNIT=1, **FORWARD),
    squeeze_map("scale", "fp16", True, 128, 23, 256, SILU=False, **FORWARD),
    squeeze_map("scale", "fp32", False, 72, 29, 128, SILU=True, **FORWARD),
    squeeze_map("scale", "fp16", False, 128, 23, 2048, SILU=False, **BACKWARD),
    squeeze_map("scale", "bf16", True, 128, 23, 2048, SILU=False, **BACKWARD),
    squeeze_map("scale", "fp32", True, 96, 27, 1024, SILU=False, **BACKWARD),
    squeeze("fp16", 960, 176, 31, 8192, BACKWARD=False),
    squeeze("bf16", 960, 176, 43, 8192, **BACKWARD),
    squeeze("fp32", 128, 176, 43, 8192, **BACKWARD),
    squeeze_weights("bf16", 176, 225, 18432),
    squeeze_weights("fp32", 176, 225, 18432),
    grouped("forward", "fp16", "32 128 56 128 32 3 1 1", 172, 16, 64, 10300),
    grouped("forward", "bf16", "32 128 56 128 32 3 1 1", 140, 4, 137, 4700, last=False),
    grouped("forward", "fp32", "32 256 28 256 32 3 1 1", 141, 16, 118, 9300),
    grouped("forward", "bf16", "32 1024 14 1024 32 3 1 1", 88, 16, 26, 10300),
    grouped("forward", "fp16", "32 240 28 240 3 1 1 3", 134, 16, 37, 16400),
    grouped("forward", "fp32", "32 384 28 96 8 1 1 8", 185, 16, 50, 5200),
    grouped("forward", "bf16", "32 240 28 60 3 1 1 3", 100, 16, 35, 15400, last=False),
    grouped("forward", "fp16", "32 12 1 6 2 1 1 2", 79, 4, 92, 7700),
    grouped("forward", "fp32", "1 2 1 2 2 1 1 1", 128, 4, 116, 9300, last=False),
    grouped("backward_input", "fp16", "32 256 56 256 32 3 2 1", 165, 16, 64, 10300),
    grouped("backward_input", "fp32", "32 240 28 240 3 1 1 3", 79, 16, 50, 9300, last=False),
    grouped("backward_weight", "fp16", "32 128 56 128 32 3 1 1", 166, 16, 45, 4200),
    grouped("backward_weight", "fp32", "32 128 56 128 32 3 1 1", 156, 16, 165, 4200, last=False),
    grouped("backward_weight", "bf16", "32 240 28 240 3 1 1 3", 141, 16, 50, 16400),
]

# Triton makes constants of numbers that are 1.
ONES = [
    ("local_response_norm.forward", ("channels", "pixels")),
    ("local_response_norm.backward", ("channels", "pixels")),
    ("softmax_focal_loss.forward", ("classes", "pixels")),
    ("softmax_focal_loss.backward", ("classes", "pixels")),
]


def label(budget: Budget) -> str:
    if budget.what:
        return f"{budget.kernel}-{budget.dtype}-{budget.what}"
    return "-".join([budget.kernel, budget.dtype, *(f"{name}={value}" for name, value in budget.constants.items())])


def compiled(budget: Budget, architecture: int):
    module, _, name = budget.kernel.partition(".")
    module = import_module(f"fastcnn.kernels.{module}")
    # Kernels of a module of their own have public names.
    kernel = getattr(module, f"_{name}_kernel", None) or getattr(module, f"{name}_kernel")
    if not isinstance(kernel, triton.JITFunction):
        pytest.fail("TRITON_INTERPRET is set: this module needs kernels that compile")
    types = dict(budget.pointers)
    signature = {
        n: f"*{types.get(n, budget.dtype)}" if n.endswith("_ptr") else "fp32" if n in FLOATS else "i32"
        for n in kernel.arg_names
        if n not in budget.constants
    }
    multiples = [name for name in budget.multiples if name in signature]
    options = (budget.num_warps, True, multiples, budget.num_stages)
    return compile_offline(kernel, signature, budget.constants, architecture, *options)


@pytest.mark.parametrize("kernel, numbers", ONES)
def test_compiles_where_a_number_is_1(kernel, numbers):
    for budget in BUDGETS:
        if budget.kernel == kernel:
            compiled(replace(budget, constants={**budget.constants, **dict.fromkeys(numbers, 1)}), 90)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", BUDGETS, ids=label)
def test_is_within_budget(budget, architecture, tmp_path):
    measured = measure(compiled(budget, architecture), tmp_path / "kernel.cubin")
    assert measured.stack <= budget.stack and measured.local == 0, measured
    assert measured.shared <= budget.shared, measured
    assert measured.registers <= budget.registers, measured
    assert measured.load >= budget.load, measured
    per_output = measured.instructions / budget.elements
    assert per_output <= budget.per_output, (per_output, measured)
