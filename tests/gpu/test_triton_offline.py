"""What Triton's compiler makes of the kernels, for GPUs that need not be there.

It compiles, nothing spills, loads are as wide as they should be, and a program is no longer than the budget says.
"""

import re
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("triton") is None:
    pytest.skip("triton is not installed: pip install 'fastcnn[triton]'", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget

from fastcnn.kernels import _depthwise, hardswish
from fastcnn.kernels._configs import ELEMENTWISE, depthwise_tile

ARCHITECTURES = [80, 90, 100]


@dataclass(frozen=True)
class Budget:
    """Upper bounds over Triton 3.6 to 3.9, about a tenth above what they give.

    registers: per thread.
    load: bytes of a lane's widest load.
    per_output: instructions of the whole program, both of its branches, over the elements a lane has.
    """

    kernel: str
    dtype: str
    registers: int
    load: int
    per_output: float


BUDGETS = [
    Budget("forward", "fp16", 28, 16, 30),
    Budget("forward", "bf16", 28, 16, 30),
    Budget("forward", "fp32", 26, 16, 25),
    Budget("forward", "fp64", 28, 16, 37),
    Budget("backward", "fp16", 34, 16, 37),
    Budget("backward", "bf16", 34, 16, 37),
    Budget("backward", "fp32", 32, 16, 28),
    Budget("backward", "fp64", 36, 16, 44),
]


def compile_offline(kernel, signature, constants, architecture, num_warps, fp_fusion=False, multiples=(), num_stages=3):
    """The compiled kernel, pointers taken as 16-byte aligned, as those of PyTorch are, `multiples` as such of 16."""
    names = kernel.arg_names
    types = {**signature, **dict.fromkeys(constants, "constexpr")}

    def aligned(name):
        return types[name].startswith("*") or name in multiples

    source = triton.compiler.ASTSource(
        fn=kernel,
        signature=types,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if aligned(name)},
    )
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": fp_fusion}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def cuobjdump(cubin, path, *arguments):
    binary = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    path.write_bytes(cubin)
    return subprocess.run([binary, *arguments, path], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Measured:
    registers: int
    stack: int
    local: int
    shared: int
    load: int
    instructions: int


def measure(compiled, path):
    usage = cuobjdump(compiled.asm["cubin"], path, "-res-usage")
    numbers = {name: int(value) for name, value in re.findall(r"\b([A-Z]+):(\d+)", usage)}
    sass = cuobjdump(compiled.asm["cubin"], path, "-sass")
    code = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", sass, re.M)
    code = [op for op in code if op != "NOP"]
    loads = [int(m[1]) // 8 for op in code if (m := re.search(r"^LDG(?:STS)?\.E\.?(?:\w+\.)*?(64|128)\b", op))]
    return Measured(
        numbers["REG"], numbers["STACK"], numbers["LOCAL"], compiled.metadata.shared, max(loads, default=4), len(code)
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", BUDGETS, ids=lambda b: f"{b.kernel}-{b.dtype}")
def test_hardswish_is_within_budget(budget, architecture, tmp_path):
    kernel = getattr(hardswish, f"_{budget.kernel}_kernel")
    if not isinstance(kernel, triton.JITFunction):
        pytest.fail("TRITON_INTERPRET is set: this module needs kernels that compile")
    config = ELEMENTWISE[int(budget.dtype[2:]) // 8]
    pointers = [name for name in kernel.arg_names if name.endswith("_ptr")]
    signature = {**dict.fromkeys(pointers, f"*{budget.dtype}"), "n": "i64"}
    compiled = compile_offline(kernel, signature, {"BLOCK": config.block}, architecture, config.num_warps)
    measured = measure(compiled, tmp_path / "kernel.cubin")
    assert measured.stack == measured.local == 0, measured
    assert measured.shared == 0, measured
    assert measured.registers <= budget.registers, measured
    assert measured.load >= budget.load, measured
    per_output = measured.instructions / (config.block / (32 * config.num_warps))
    assert per_output <= budget.per_output, (per_output, measured)


@dataclass(frozen=True)
class DepthwiseBudget:
    """As Budget, for each architecture; loads are of channels_last, in planes a lane has one column."""

    size: int
    stride: int
    dtype: str
    registers: int


DEPTHWISE_BUDGETS = [
    DepthwiseBudget(3, 1, "fp16", 200),
    DepthwiseBudget(3, 2, "fp32", 160),
    DepthwiseBudget(7, 1, "bf16", 255),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("direction", ["forward", "grad_input", "grad_weight"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("budget", DEPTHWISE_BUDGETS, ids=lambda b: f"k{b.size}s{b.stride}-{b.dtype}")
def test_depthwise_conv2d_is_within_budget(budget, channels_last, direction, architecture, tmp_path):
    tile = depthwise_tile(channels_last, int(budget.dtype[2:]) // 8, budget.size, 56, 128 if channels_last else 56)
    taps = {"TAPS_B": budget.size, "TAPS_L": budget.size, "STRIDE_B": budget.stride, "STRIDE_L": budget.stride}
    rest = {"DILATION_B": 1, "DILATION_L": 1, "MULTIPLIER": 1, "CHANNELS_LAST": channels_last}
    constants = {**taps, **rest, "QUEUE": tile.queue, "DOWN": tile.down, "ACROSS": tile.across}
    if direction == "grad_weight":
        kernel = _depthwise.grad_weight_kernel
        constants |= {"HAS_BIAS": True, "LINES": 3 if budget.size == 3 else 1, "EVEN": True}
    else:
        kernel = _depthwise.correlate_kernel
        constants |= {"TRANSPOSED": direction == "grad_input", "ACTIVATION": 4 * (direction == "forward")}
    signature = {
        name: f"*{budget.dtype}" if name.endswith("_ptr") else "i32"
        for name in kernel.arg_names
        if name not in constants
    }
    if direction == "grad_weight":
        signature["partial_ptr"] = "*fp32"
    elif channels_last:
        signature["weight_ptr"] = "*fp32"
    if direction == "grad_input":
        del signature["bias_ptr"]
        constants["bias_ptr"] = None
    multiples = {"in_channels", "out_channels", "channels", "filters"} if channels_last else set()
    compiled = compile_offline(kernel, signature, constants, architecture, tile.num_warps, True, multiples)
    measured = measure(compiled, tmp_path / "kernel.cubin")
    # The stack of a few bytes holds predicates, where there are more of them than registers for them.
    assert measured.stack <= 32 and measured.local == 0, measured
    assert measured.registers <= budget.registers, measured
    assert measured.load >= (16 if channels_last else 4), measured


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_depthwise_conv2d_adds_up_parts(architecture, tmp_path):
    kernel = _depthwise.reduce_kernel
    signature = {"partial_ptr": "*fp32", "weight_ptr": "*fp16", "bias_ptr": "*fp16", "parts": "i32", "filters": "i32"}
    compiled = compile_offline(kernel, signature, {"TAPS": 9, "DOWN": 32, "ACROSS": 32}, architecture, 4, True)
    assert measure(compiled, tmp_path / "kernel.cubin").stack == 0
