"""Measures the CPU kernels of qontext's own library against torch, outputs checked first; writes a JSON record.

Usage: python bench/native_kernels.py [--output FOLDER] [--name SUFFIX] [--only WORD ...] [--seconds S] [--rounds N]

A kernel with a bias has two rivals: torch's two passes, and torch's activation alone (a library that adds the bias
inside its GEMM needs no more). `ratio` is the best rival's median time over ours: over 1 we are faster.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", default="bench/results")
parser.add_argument("--name", default="", help="suffix of the file name")
parser.add_argument("--only", nargs="+", default=[], help="measure the cases whose name holds all these words")
parser.add_argument("--seconds", type=float, default=0.2, help="timed seconds a rival and round")
parser.add_argument("--rounds", type=int, default=5)
arguments = parser.parse_args()
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))  # before any runtime starts its threads

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from qontext import dtypes, native  # noqa: E402
from qontext.benchmark.machine import machine  # noqa: E402
from qontext.benchmark.timing import time_in_blocks  # noqa: E402
from qontext.native.bound import bind_activation, bind_norm  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ROWS = ((128, 768), (1024, 768), (128, 3072), (1024, 3072), (8192, 384))


@dataclass
class Case:
    """Rivals write `out` (or return a result) that is compared with `wanted` by the tolerance of `dtype`.

    `beyond` are rivals that do less than the whole job: timed, not compared.
    """

    name: str
    dtype: torch.dtype
    wanted: torch.Tensor
    ours: Callable[[], torch.Tensor]
    rivals: dict[str, Callable[[], torch.Tensor]]
    beyond: dict[str, Callable[[], torch.Tensor]] = field(default_factory=dict)


ACTIVATIONS: dict[str, tuple[str, Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    "relu": ("relu", F.relu, lambda x, out: torch.clamp_min(x, 0, out=out)),
    "gelu_erf": ("gelu", F.gelu, torch.ops.aten.gelu.out),
    "gelu_tanh": (
        "gelu_tanh",
        partial(F.gelu, approximate="tanh"),
        partial(torch.ops.aten.gelu.out, approximate="tanh"),
    ),
    "silu": ("silu", F.silu, torch.ops.aten.silu.out),
}


def activation(short: str, rows: int, size: int, kind: str) -> Case:
    dtype = DTYPES[short]
    name, reference, in_torch = ACTIVATIONS[kind]
    x, bias = torch.randn(rows, size).to(dtype), torch.randn(size).to(dtype)
    out = torch.empty_like(x)
    bound = bind_activation(size, dtype, name)

    def ours() -> torch.Tensor:
        bound(x, bias, out)
        return out

    def two_passes() -> torch.Tensor:
        return in_torch(torch.add(x, bias, out=out), out=out)

    wanted = reference(x.double() + bias.double())
    return Case(
        f"bias + {kind} {short} {rows}x{size}",
        dtype,
        wanted,
        ours,
        {"torch, two passes": two_passes},
        {"torch, no bias": lambda: in_torch(x, out=out)},
    )


def norm(short: str, rows: int, size: int, joined: bool) -> Case:
    dtype = DTYPES[short]
    x, skip = torch.randn(rows, size).to(dtype), torch.randn(rows, size).to(dtype)
    gamma, beta, bias = (torch.randn(size).to(dtype) for _ in range(3))
    out, total = torch.empty_like(x), torch.empty_like(x)
    bound = bind_norm(size, dtype, eps=1e-12)
    finish = partial(F.layer_norm, normalized_shape=(size,), weight=gamma, bias=beta, eps=1e-12)

    def ours() -> torch.Tensor:
        bound(x, skip if joined else None, bias if joined else None, gamma, beta, out, None)
        return out

    wide = x.double() + skip.double() + bias.double() if joined else x.double()
    wanted = F.layer_norm(wide, (size,), gamma.double(), beta.double(), 1e-12)
    if not joined:
        return Case(f"layer norm {short} {rows}x{size}", dtype, wanted, ours, {"torch": lambda: finish(x)})
    return Case(
        f"skip + bias + layer norm {short} {rows}x{size}",
        dtype,
        wanted,
        ours,
        {"torch, three passes": lambda: finish(torch.add(x, skip, out=total).add_(bias))},
        {"torch, no bias": lambda: finish(torch.add(x, skip, out=total))},
    )


def embedding(short: str, batch: int, length: int) -> Case:
    size, words = 768, 30522
    tables = [torch.randn(n, size).to(DTYPES[short]) for n in (words, 512, 2)]
    gamma, beta = torch.randn(size).to(DTYPES[short]), torch.randn(size).to(DTYPES[short])
    ids, types = torch.randint(0, words, (batch, length)), torch.randint(0, 2, (batch, length))
    positions = torch.arange(length).expand(batch, length)
    out = torch.empty(batch, length, size, dtype=DTYPES[short])

    def look_up(word: torch.Tensor, position: torch.Tensor, type: torch.Tensor) -> torch.Tensor:
        return F.embedding(ids, word).add_(F.embedding(positions, position)).add_(F.embedding(types, type))

    def ours() -> torch.Tensor:
        word, position, type = tables
        return native.embed_layer_norm(ids, word, gamma, beta, out=out, position=position, type=type, types=types)

    wide = look_up(*[t.double() for t in tables])
    return Case(
        f"embedding + layer norm {short} {batch}x{length}x{size}",
        DTYPES[short],
        F.layer_norm(wide, (size,), gamma.double(), beta.double(), 1e-12),
        ours,
        {"torch": lambda: F.layer_norm(look_up(*tables), (size,), gamma, beta, 1e-12)},
    )


def gather(short: str, chosen: int, rows: int, size: int) -> Case:
    x = torch.randn(rows, size).to(DTYPES[short])
    index = torch.randperm(rows)[:chosen].sort().values
    out = torch.empty(chosen, size, dtype=x.dtype)
    return Case(
        f"gather rows {short} {chosen} of {rows}x{size}",
        x.dtype,
        x[index].double(),
        lambda: native.gather_rows(x, index, out=out),
        {"torch": lambda: torch.index_select(x, 0, index, out=out)},
    )


def scatter(short: str, chosen: int, rows: int, size: int) -> Case:
    x = torch.randn(chosen, size).to(DTYPES[short])
    index = torch.randperm(rows)[:chosen].sort().values
    out = torch.empty(rows, size, dtype=x.dtype)
    return Case(
        f"scatter rows {short} {chosen} to {rows}x{size}",
        x.dtype,
        torch.zeros(rows, size, dtype=torch.float64).index_copy_(0, index, x.double()),
        lambda: native.scatter_rows(x, index, out=out),
        {"torch": lambda: out.zero_().index_copy_(0, index, x)},
    )


def attention(short: str, batch: int, length: int) -> Case:
    heads, head = 12, 64
    q, k, v = (torch.randn(batch, length, heads, head).to(DTYPES[short]) for _ in range(3))
    out = torch.empty_like(q)

    def in_torch(*parts: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(*[t.transpose(1, 2) for t in parts]).transpose(1, 2)

    return Case(
        f"attention {short} {batch}x{length} heads {heads}x{head}",
        q.dtype,
        in_torch(q.double(), k.double(), v.double()),
        lambda: native.attention(q, k, v, out=out),
        {"torch": lambda: in_torch(q, k, v)},
    )


def cases() -> Iterator[Callable[[], Case]]:
    for short in DTYPES:
        yield from (partial(activation, short, *shape, kind) for kind in ACTIVATIONS for shape in ROWS)
        yield from (partial(norm, short, *shape, joined) for joined in (False, True) for shape in ROWS)
    for short in ("fp32", "bf16"):
        yield from (partial(embedding, short, batch, 128) for batch in (1, 8))
        yield partial(gather, short, 1100, 2048, 768)
        yield partial(scatter, short, 1100, 2048, 768)
        yield from (partial(attention, short, *shape) for shape in ((1, 32), (1, 128), (8, 128), (1, 512)))


def measure(case: Case) -> dict[str, object]:
    """Checks every rival's result, then times them. Raises SystemExit when one is wrong."""
    tolerance = dtypes.from_torch(case.dtype).tolerance
    errors = {}
    for name, call in {"qontext": case.ours, **case.rivals}.items():
        errors[name] = dtypes.relative_rms(call(), case.wanted)
        if not errors[name] < tolerance:
            raise SystemExit(f"{case.name}: {name} is wrong by {errors[name]:.2e}, allowed is {tolerance:.0e}")
    timed = time_in_blocks(
        {"qontext": case.ours, **case.rivals, **case.beyond}, arguments.seconds, arguments.rounds, rest=0.02
    )
    ours = timed.pop("qontext")
    best = min(timed[name].median for name in case.rivals)
    row: dict[str, object] = {
        "case": case.name,
        "us": round(ours.median * 1e6, 1),
        "best_us": round(ours.best * 1e6, 1),
        "error": errors["qontext"],
        "ratio": round(best / ours.median, 3),
        "rivals": {
            name: {"us": round(t.median * 1e6, 1), "best_us": round(t.best * 1e6, 1), "error": errors.get(name)}
            for name, t in timed.items()
        },
    }
    others = ", ".join(f"{name} {t.median * 1e6:.0f}" for name, t in timed.items())
    print(f"{case.name}: {ours.median * 1e6:.0f} us; {others}; ratio {row['ratio']}", flush=True)
    return row


torch.manual_seed(0)
native.steady_allocator()
if not native.available():
    raise SystemExit(native.status().reason)
made = (make() for make in cases())
rows = [measure(case) for case in made if all(word in case.name for word in arguments.only)]
record = {"what": "native_kernels", "machine": machine(), "kernels": str(native.status().isa), "rows": rows}
folder = Path(arguments.output)
folder.mkdir(parents=True, exist_ok=True)
target = folder / f"native-kernels{arguments.name}.json"
target.write_text(json.dumps(record, indent=1) + "\n")
print(target)
