"""The GPU kernels of all operators but attention: outputs checked against float32 first, then every variant timed.

Usage: python bench/gpu_kernels.py [--tokens 128 384 4096 16384 45000] [--sizes base large] [--dtype fp16]
                                   [--only WORD ...] [--output FILE]

A row is one call at a shape of BERT-base or BERT-large: microseconds from the replay of a CUDA graph over inputs that
come from memory, terabytes or operations a second, and the share of the ceiling measured in the same run: a copy for
what moves memory, the larger of the two times for Linear (its bytes at the rate of a copy, its operations at that of
the vendor's 8192^3 product). "torch" rows are what plain torch needs for the same.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import triton

from qontext.benchmark.gpu_replay import copy_rate, gemm_rate, replayed
from qontext.dtypes import by_name, relative_rms
from qontext.ops.call import Call, Kernel
from qontext.ops.catalogue import BY_NAME
from qontext.ops.declare import Op, call_of
from qontext.ops.device import device_of
from qontext.plugins.conformance import with_constants

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--tokens", nargs="+", type=int, default=[128, 384, 4096, 16384, 45000])
parser.add_argument("--sizes", nargs="+", default=["base", "large"], choices=["base", "large"])
parser.add_argument("--dtype", default="fp16", choices=["fp16", "bf16", "fp32"])
parser.add_argument("--only", nargs="+", default=[], help="operators whose name holds one of these words")
parser.add_argument("--output", default="")
arguments = parser.parse_args()

DTYPE = by_name(arguments.dtype)
WIDTHS = {"base": (768, 3072, 12), "large": (1024, 4096, 16)}
FROM_MEMORY = 128 << 20  # bytes of inputs in turn: twice what the second-level cache holds
MOST_SETS = 48
LENGTH = 128

Tensors = list[torch.Tensor | None]


@dataclass(frozen=True)
class Problem:
    """One call of an operator: `make` gives fresh inputs, `plain` computes the same in torch, where given.

    moved: bytes that come from memory and go there, where the operator's own count has what the cache holds in it
    """

    op: str
    shape: str
    attributes: dict[str, object]
    make: Callable[[], Tensors]
    plain: Callable[..., torch.Tensor] | None = None
    moved: float = 0.0


@dataclass(frozen=True)
class Row:
    op: str
    shape: str
    kernel: str
    us: float
    tb_s: float
    tflops: float
    share: float
    error: float


def normal(*shape: int, mean: float = 0.0) -> torch.Tensor:
    return (torch.randn(*shape, device="cuda") + mean).to(DTYPE.torch)


def linear(t: int, n: int, k: int, activation: str, size: str) -> Problem:
    def plain(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, *rest: object) -> torch.Tensor:
        y = F.linear(x, w, b)
        return F.gelu(y) if activation == "gelu_erf" else y

    def weight() -> torch.Tensor:
        return (torch.randn(n, k, device="cuda") * k**-0.5).to(DTYPE.torch)

    shape = f"{size} {t}x{k} -> {n}{'' if activation == 'none' else ' ' + activation}"
    none: Tensors = [None] * 4
    return Problem(
        "Linear", shape, {"activation": activation}, lambda: [normal(t, k), weight(), normal(n), *none], plain
    )


def problems(size: str, t: int) -> list[Problem]:
    """The calls of one size of BERT at `t` tokens; half of a padded batch is padding."""
    e, f, heads = WIDTHS[size]
    scale, shift, x_bias, words = normal(e, mean=1.0), normal(e), normal(e), normal(30522, e)
    places, kinds, f_bias = normal(512, e), normal(2, e), normal(f)
    starts = torch.arange(t // LENGTH + 1, device="cuda", dtype=torch.int32) * LENGTH
    kept = torch.arange(2 * t, device="cuda").view(-1, 2)[:, 0].contiguous()
    padded = torch.ones(2, t, device="cuda", dtype=torch.int64)
    shape, by_head = f"{size} {t}x{e}", {"layout": "T (N D)", "num_heads": heads}

    def whole(limit: int) -> torch.Tensor:
        return torch.randint(0, limit, (t,), device="cuda")

    def skip_norm(
        x: torch.Tensor, skip: torch.Tensor, w: torch.Tensor, b: torch.Tensor, xb: torch.Tensor
    ) -> torch.Tensor:
        return F.layer_norm(x + skip + xb, (e,), w, b, 1e-12)

    return [
        Problem("SkipLayerNorm", shape, {}, lambda: [normal(t, e), normal(t, e), scale, shift, x_bias], skip_norm),
        Problem(
            "LayerNorm", shape, {}, lambda: [normal(t, e), scale, shift], lambda x, w, b: F.layer_norm(x, (e,), w, b)
        ),
        Problem("RMSNorm", shape, {}, lambda: [normal(t, e), scale], lambda x, w: F.rms_norm(x, (e,), w, 1e-6)),
        Problem(
            "EmbedLayerNorm", shape, {},
            lambda: [whole(30522), words, whole(512), places, whole(2), kinds, scale, shift, None],
            # The tables of positions and types stay in the cache.
            moved=t * (2 * e * DTYPE.bits / 8 + 24),
        ),
        Problem("Gelu", f"{size} {t}x{f}", {}, lambda: [normal(t, f), f_bias], lambda x, b: F.gelu(x + b)),
        Problem(
            "RotaryEmbedding", shape, by_head, lambda: [normal(t, e), normal(512, 32), normal(512, 32), whole(512)]
        ),
        Problem("FirstTokens", shape, {}, lambda: [normal(t, e), starts]),
        Problem(
            "PackTokens", shape, {}, lambda: [normal(2, t, e), kept], lambda x, i: x.flatten(0, 1).index_select(0, i)
        ),
        Problem("UnpackTokens", shape, {}, lambda: [normal(t, e), kept, padded]),
        Problem(
            "PackIndex", f"{2 * t // LENGTH}x{LENGTH}", {},
            lambda: [torch.rand(2 * t // LENGTH, LENGTH, device="cuda") < 0.5],
        ),
        linear(t, 3 * e, e, "none", size),
        linear(t, e, e, "none", size),
        linear(t, f, e, "gelu_erf", size),
        linear(t, e, f, "none", size),
    ]  # fmt: skip


def sets_of(problem: Problem) -> list[Tensors]:
    """Enough sets of inputs that they come from memory, at least two."""
    first = problem.make()
    bytes_each = sum(t.numel() * t.element_size() for t in first if t is not None)
    return [first, *[problem.make() for _ in range(min(max(2, FROM_MEMORY // bytes_each), MOST_SETS) - 1)]]


def fresh(call: Call, want: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Outputs filled with NaN."""
    made: list[torch.Tensor | None] = []
    for operand, w in zip(call.outputs, want, strict=True):
        if operand is None or w is None:
            made.append(None)
        else:
            fill = float("nan") if operand.type.is_float else -77
            made.append(torch.full_like(w, fill, dtype=operand.type.torch))
    return made


def reference(op: Op, call: Call, inputs: Tensors) -> list[torch.Tensor | None]:
    wide = [t.float() if t is not None and t.is_floating_point() else t for t in inputs]
    result = op.reference(*wide, **call.attributes)
    found = list(result) if isinstance(result, tuple) else [result]
    return [None if t is None else t.cuda() for t in found]


def worst(call: Call, got: Sequence[torch.Tensor | None], want: Sequence[torch.Tensor | None]) -> float:
    """The largest relative error of the wanted outputs; infinite where integers differ."""
    errors = []
    for operand, g, w in zip(call.outputs, got, want, strict=True):
        if operand is not None and g is not None and w is not None:
            exact = 0.0 if torch.equal(g.cuda(), w.to(g.dtype)) else float("inf")
            errors.append(relative_rms(g, w) if operand.type.is_float else exact)
    return max(errors)


def measure(problem: Problem, copy: float, gemm: float) -> Iterator[Row]:
    op, device = BY_NAME[problem.op], device_of("cuda")
    sets = sets_of(problem)
    call = call_of(op, sets[0], problem.attributes, op.wanted(()), device)
    want = reference(op, call, sets[0])
    call = with_constants(call, sets[0]) if problem.op == "Linear" else call
    assert op.cost is not None
    cost = op.cost(call)
    moved, flops = problem.moved or cost.bytes, cost.flops if problem.op == "Linear" else 0.0
    floor = max(moved / copy, flops / gemm)

    def row(kernel: str, us: float, error: float) -> Row:
        return Row(op.name, problem.shape, kernel, us, moved / us / 1e6, flops / us / 1e6, floor / us, error)

    for kernel in op.kernels:
        if kernel.device == "cuda" and kernel.writes_out and kernel.supports(call) is None:
            yield row(kernel.name, *timed(op, kernel, call, sets, want))
    if problem.plain is not None:
        plain = problem.plain
        given = [[t for t in s if t is not None] for s in sets]
        error = worst(call, [plain(*given[0]), *[None] * (len(call.outputs) - 1)], want)
        yield row("torch", replayed([lambda g=g: plain(*g) for g in given]), error)


def timed(
    op: Op, kernel: Kernel, call: Call, sets: list[Tensors], want: Sequence[torch.Tensor | None]
) -> tuple[float, float]:
    """Microseconds and error of one kernel. Weights of Linear are bound as constants, one set a binding."""
    runs = []
    for inputs in sets:
        mine = with_constants(call, inputs) if op.name == "Linear" else call
        runs.append((kernel.bind(mine), inputs, fresh(call, want)))
    run, inputs, out = runs[0]
    run(inputs, out)
    error = worst(call, out, want)
    allowed = DTYPE.tolerance if any(o is not None and o.type.is_float for o in call.outputs) else 0.0
    if not error <= allowed:
        raise SystemExit(
            f"{kernel.name} {[list(t.shape) for t in inputs if t is not None]}: error {error}, allowed {allowed}"
        )
    return replayed([lambda r=r: r[0](r[1], r[2]) for r in runs]), error


def main() -> None:
    torch.manual_seed(0)
    copy, gemm = copy_rate(), gemm_rate(DTYPE.torch)
    device = torch.cuda.get_device_name()
    print(f"{device}, torch {torch.__version__}, Triton {triton.__version__}, {DTYPE.name}")
    print(f"copy {copy / 1e6:.2f} TB/s, product {gemm / 1e6:.0f} TFLOP/s\n", flush=True)
    rows: list[Row] = []
    for problem in (p for size in arguments.sizes for t in arguments.tokens for p in problems(size, t)):
        if arguments.only and not any(word.lower() in problem.op.lower() for word in arguments.only):
            continue
        found = sorted(measure(problem, copy, gemm), key=lambda r: r.us)
        rows += found
        best = "; ".join(f"{r.kernel} {r.us:.2f}" for r in found[:3])
        top = found[0]
        rate = f"{top.tflops:.0f} TFLOP/s" if top.tflops else f"{top.tb_s:.2f} TB/s"
        print(f"{problem.op:16} {problem.shape:32} {rate:>12} {top.share:5.0%}  {best}", flush=True)
        torch.cuda.empty_cache()
    if arguments.output:
        record = {
            "device": device,
            "torch": torch.__version__,
            "triton": triton.__version__,
            "dtype": DTYPE.name,
            "copy_tb_s": copy / 1e6,
            "gemm_tflops": gemm / 1e6,
            "rows": [asdict(r) for r in rows],
        }
        Path(arguments.output).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
