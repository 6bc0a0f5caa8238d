"""What Triton's compiler makes of the kernels of whole ops: as test_triton_offline.py, one row for each variant.

Those of convolutions are in test_triton_convolutions.py.
"""

from dataclasses import replace
from importlib.util import find_spec

import pytest

if find_spec("triton") is None:
    pytest.skip("triton is not installed: pip install 'fastcnn[triton]'", allow_module_level=True)

from test_triton_offline import ARCHITECTURES, Budget, assert_is_within, compile_offline

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


ADDED = {"types": (("partial_ptr", "fp32"), ("count_ptr", "i64"))}
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
    Budget("_focal.add_up", "bf16", {"COUNTED": True, "BLOCK": 1024}, 29, 8, 15, 36, **ADDED),
    Budget("_focal.add_up", "fp32", {"COUNTED": False, "BLOCK": 1024}, 29, 4, 15, 36, **ADDED),
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
    squeeze_map("scale", "fp16", False, 200, 31, 256, SILU=True, PIXELS_UNIT=1, **FORWARD),
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
]

# Triton makes constants of numbers that are 1.
ONES = [
    ("local_response_norm.forward", ("channels", "pixels")),
    ("local_response_norm.backward", ("channels", "pixels")),
    ("softmax_focal_loss.forward", ("classes", "pixels")),
    ("softmax_focal_loss.backward", ("classes", "pixels")),
]


@pytest.mark.parametrize("kernel, numbers", ONES)
def test_compiles_where_a_number_is_1(kernel, numbers):
    for budget in BUDGETS:
        if budget.kernel == kernel:
            compile_offline(replace(budget, constants={**budget.constants, **dict.fromkeys(numbers, 1)}), 90)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_is_within_budget(budget, architecture, tmp_path):
    assert_is_within(budget, architecture, tmp_path)
