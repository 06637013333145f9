"""A LayerNorm of the user's: an operator in a file of its own, outside the qontext package.

It is the plugin of the homework "BERT Inference Using TensorRT": x `[B, S, E]` (there `[-1, -1, 768]`), gamma and
beta `[1, 1, E]`, in one kernel for the CPU and one for the GPU.

    from layer_norm_plugin import LAYER_NORM
    net = qontext.Network("one_norm", plugins=[LAYER_NORM])
    y = LAYER_NORM(x, gamma, beta)                    # on values of the network: adds a node
    engine = qontext.build(model, plugins=[LAYER_NORM])
    engine = qontext.load("norm.qx", plugins=[LAYER_NORM])
    y = LAYER_NORM(tensor, gamma, beta)               # on torch tensors: computes at once
"""

import importlib.util
from collections.abc import Iterable

import torch

from qontext.plugins import Attribute, Bound, Call, Case, Cost, Kernel, Op, Param, Tensors


def reference(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, *, epsilon: float) -> torch.Tensor:
    """y = (x - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis: the truth, in plain words."""
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + epsilon) * gamma + beta


def _supports(call: Call) -> str | None:
    x = call.inputs[0]
    if x is None or x.shape is None or not isinstance(x.shape[-1], int):
        return "the last axis of x must be a number"
    return None


def _bind(call: Call) -> Bound:
    """One kernel for all of it: mean and variance in a single sweep over each row, the rest in the output's memory.

    Statistics are float32 for every input type, so float16 and bfloat16 inputs lose nothing in them.
    """
    epsilon = call.attributes["epsilon"]

    def run(inputs: Tensors, out: Tensors | None = None) -> torch.Tensor:
        x, gamma, beta = inputs
        assert x is not None and gamma is not None and beta is not None and out is not None
        y = out[0]
        assert y is not None
        wide = y if x.dtype == torch.float32 else torch.empty_like(y, dtype=torch.float32)
        source = x if x.dtype == torch.float32 else x.float()
        variance, mean = torch.var_mean(source, -1, correction=0, keepdim=True)
        torch.sub(source, mean, out=wide)
        wide.mul_(variance.add_(epsilon).rsqrt_())
        torch.addcmul(beta, wide, gamma, out=wide)
        if wide is not y:
            y.copy_(wide)
        return y

    return run


WIDEST = 16384  # numbers of a row that a program of the GPU kernel keeps in registers


def _gpu_supports(call: Call) -> str | None:
    refused = _supports(call)
    if refused is not None:
        return refused
    width = _width(call)
    if not 0 < width <= WIDEST:
        return f"rows have {width} numbers, the kernel takes 1 to {WIDEST}"
    return None if importlib.util.find_spec("triton") else "the package 'triton' is not installed"


def _gpu_bind(call: Call) -> Bound:
    """One Triton kernel, compiled when it first runs for a type and a width."""
    from layer_norm_kernel import layer_norm

    epsilon, width = call.attributes["epsilon"], _width(call)
    columns = 1 << (width - 1).bit_length()
    warps = min(max(columns // 256, 1), 16)

    def run(inputs: Tensors, out: Tensors | None = None) -> torch.Tensor:
        x, gamma, beta = (tensor.contiguous() for tensor in inputs if tensor is not None)
        assert out is not None
        y = out[0]
        assert y is not None
        rows = x.numel() // width
        if rows:
            layer_norm[(rows,)](x, gamma, beta, y, epsilon, width, columns, num_warps=warps)
        return y

    return run


def _width(call: Call) -> int:
    """Numbers in a row, of which `_supports` has said that it is known."""
    x = call.inputs[0]
    assert x is not None and x.shape
    width = x.shape[-1]
    assert isinstance(width, int)
    return width


def _cost(call: Call) -> Cost:
    """Reads x, gamma and beta once, writes y once; about eight operations a number."""
    x, y = call.inputs[0], call.outputs[0]
    assert x is not None and y is not None
    numbers = 1
    for size in x.shape or ():
        assert isinstance(size, int)
        numbers *= size
    width = x.shape[-1] if x.shape else 1
    assert isinstance(width, int)
    return Cost((2 * numbers + 2 * width) * y.type.bits / 8, 8.0 * numbers)


def _body(call: Call) -> str:
    """The same in standard ONNX operators, so that a saved ONNX model runs anywhere."""
    return f"""
        axes = Constant<value_ints=[0, 1]>()
        scale = Squeeze(gamma, axes)
        shift = Squeeze(beta, axes)
        y = LayerNormalization<axis=-1, epsilon={call.attributes["epsilon"]!r}>(x, scale, shift)
    """


def _case(name: str, batch: int, length: int, width: int, bench: bool = False) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor]:
        shapes = ((batch, length, width), (1, 1, width), (1, 1, width))
        return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]

    return Case(name, make, bench=bench)


def cases() -> Iterable[Case]:
    yield _case("one_token", 1, 1, 768)
    yield _case("odd", 3, 5, 33)
    yield _case("homework", 4, 64, 768)
    yield _case("largest_of_the_homework", 16, 256, 768, bench=True)


LAYER_NORM = Op(
    name="LayerNormPlugin",
    version=1,
    domain="homework",
    doc="y = (x - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis, statistics in float32.",
    inputs=(Param("x", "B S E"), Param("gamma", "1 1 E"), Param("beta", "1 1 E")),
    outputs=(Param("y", "B S E"),),
    attributes=(Attribute("epsilon", float, 1e-12),),
    reference=reference,
    kernels=(
        Kernel("homework.layer_norm", "cpu", _supports, _bind, writes_out=True),
        Kernel("homework.layer_norm_gpu", "cuda", _gpu_supports, _gpu_bind, writes_out=True),
    ),
    cases=cases,
    cost=_cost,
    body=_body,
)
