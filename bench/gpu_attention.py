"""Times our GPU attention kernels against PyTorch's on one GPU; every kernel is checked against float32 first.

Usage: python bench/gpu_attention.py [--output FILE] [--cases WORD ...] [--kernels WORD ...] [--no-peers]
           [--flashinfer WORD ...] [--tiles]

The rate counts useful work: 4 * N * D operations for each query and key of the same sequence that attend (half of them
when causal), padding and masked parts of tiles not at all. Each figure is the median of CUDA graph replays.
"Heads apart" says that queries, keys and values are `[B, N, S, D]`, each contiguous, which no projection gives; all
other rows of ours, and those of peers that say so, read the packed projection `[T, 3, N, D]` as it is.
`--tiles` times the streaming kernel with every tile size: `ops/attention_common/gpu_choice.py` holds the best.
"""

import argparse
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from qontext.benchmark.gpu_flashinfer import ragged_attention
from qontext.benchmark.gpu_replay import replayed
from qontext.benchmark.machine import machine
from qontext.dtypes import by_name, from_torch, relative_rms
from qontext.ops.attention_common import gpu
from qontext.ops.attention_common.gpu_choice import Tile
from qontext.ops.call import Call, Kernel
from qontext.ops.catalogue import BY_NAME
from qontext.ops.declare import call_of
from qontext.ops.device import device_of
from qontext.ops.eight_bits import MOST
from qontext.ops.gpu_facts import gpu_facts
from qontext.plugins.conformance import kernels_of, with_constants

OP, ATTENTION, QUANT = (BY_NAME[name] for name in ("QKVToContext", "Attention", "QuantQKVToContext"))
IN_BYTES = 0.01  # relative error against the reference of the same bytes: some round the other way
IN_FP8 = 0.015  # the same of a context in float8_e4m3, whose steps are 0.06 to 0.12
MOST_IN_BYTES = 512  # tokens of a sequence: the reference holds all probabilities in float64
FP8 = "float8_e4m3"
Run = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """Lengths of the sequences, heads, head size; equal lengths are given to padded peers too."""

    name: str
    lengths: tuple[int, ...]
    heads: int = 16
    size: int = 64
    kind: str = "full"
    dtype: torch.dtype = torch.bfloat16

    @property
    def flops(self) -> float:
        pairs = float(sum(n * n for n in self.lengths)) * (0.5 if self.kind == "causal" else 1)
        return 4.0 * self.heads * self.size * pairs

    @property
    def even(self) -> bool:
        return len(set(self.lengths)) == 1


def cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    ragged = tuple(torch.randint(16, 385, (256,), generator=generator).tolist())
    squad = tuple(torch.randint(64, 291, (256,), generator=generator).tolist())
    return [
        Case("ragged 16..384, 16 heads", ragged),
        Case("ragged 16..384, 12 heads, fp16", ragged, heads=12, dtype=torch.float16),
        Case("ragged 64..290, 16 heads", squad),
        Case("64 x 512", (64,) * 512),
        Case("128 x 256", (128,) * 256),
        Case("384 x 85", (384,) * 85),
        Case("512 x 64", (512,) * 64),
        Case("128 x 1", (128,), heads=12, dtype=torch.float16),
        Case("384 x 1", (384,), dtype=torch.float16),
        Case("2048 x 8, D 128", (2048,) * 8, size=128),
        Case("2048 x 8, D 128, causal", (2048,) * 8, size=128, kind="causal"),
        Case("ragged 16..384, causal", ragged, kind="causal"),
    ]


class Bench:
    """One case: its inputs, the float32 result, and what has been measured."""

    def __init__(self, case: Case, words: Sequence[str] = ()):
        self.case = case
        self.words = words  # of the names of the kernels to time; none: all
        generator = torch.Generator("cuda").manual_seed(1)
        tokens = sum(case.lengths)
        width = 3 * case.heads * case.size
        self.qkv = torch.randn(tokens, width, generator=generator, device="cuda").to(case.dtype)
        bounds = torch.tensor([0, *case.lengths]).cumsum(0)
        self.cu = bounds.to(device="cuda", dtype=torch.int32)
        self.longest = max(case.lengths)
        self.parts = self.qkv.unflatten(-1, (3, case.heads, case.size)).unbind(1)
        self.want = self._reference(bounds.tolist())
        self.rows: list[dict[str, Any]] = []

    def _reference(self, bounds: Sequence[int]) -> torch.Tensor:
        q, k, v = (x.float() for x in self.parts)
        done = []
        with sdpa_kernel(SDPBackend.MATH):
            for a, b in pairwise(bounds):
                q1, k1, v1 = (x[a:b].transpose(0, 1)[None] for x in (q, k, v))
                one = F.scaled_dot_product_attention(q1, k1, v1, is_causal=self.case.kind == "causal")
                done.append(one[0].transpose(0, 1))
        return torch.cat(done)

    def measure(
        self, name: str, run: Run, result: Callable[[], torch.Tensor], checked: tuple[torch.Tensor, float] | None = None
    ) -> None:
        """Checks the result `[T, N, D]` of one call, then times it; a failure is a row too.

        checked: what its first rows have to be and the error allowed there, where that is not attention in float32; how
            far the whole is from that is the row's "error" all the same.
        """
        if self.words and not any(word in name for word in self.words):
            return
        row: dict[str, Any] = {"case": self.case.name, "kernel": name}
        try:
            run()
            error = relative_rms(result(), self.want)
            row["error"] = error
            allowed = from_torch(self.case.dtype).tolerance
            if checked is not None:
                error, allowed = relative_rms(result()[: len(checked[0])], checked[0]), checked[1]
                row["error_of_scheme"] = error
            if not error <= allowed:
                row["failed"] = f"relative error {error:.2e}"
            else:
                row["ms"] = replayed([run]) / 1e3
                row["tflops"] = self.case.flops / row["ms"] / 1e9
        except Exception as error:  # the other rows are still worth having
            row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"
        self.rows.append(row)
        shown = row.get("failed") or f"{row['ms'] * 1e3:9.1f} us {row['tflops']:7.1f} TFLOP/s"
        print(f"{self.case.name:32s} {name:38s} {shown}", flush=True)

    def ours(self, kernel: Kernel, name: str = "") -> None:
        """One of the operator's kernels on the packed projection."""
        case = self.case
        attributes = {"num_heads": case.heads, "layout": "T (three N D)", "kind": case.kind}
        longest = torch.tensor(self.longest, dtype=torch.int32)
        inputs = [self.qkv, None, None, None, self.cu, longest, None]
        call = call_of(OP, inputs, attributes, (True, False, False), device_of("cuda"))
        if kernel.supports(call) is not None:
            return
        out = torch.full_like(self.want, torch.nan, dtype=case.dtype).flatten(1)
        bound = kernel.bind(call)
        self.measure(
            name or kernel.name, lambda: bound(inputs, [out, None, None]), lambda: out.unflatten(1, (case.heads, -1))
        )

    def writing_fp8(self, kernel: Kernel) -> None:
        """One of the operator's kernels with a context in float8_e4m3, as an engine in fp8 runs it."""
        case, longest = self.case, torch.tensor(self.longest, dtype=torch.int32)
        by = 2 * self.want.abs().max() / MOST
        inputs = [self.qkv, None, None, None, self.cu, longest, None, by, None, None]
        attributes = {"num_heads": case.heads, "layout": "T (three N D)", "kind": case.kind, "eight_bits": FP8}
        call = with_constants(call_of(OP, inputs, attributes, (True, False, False), device_of("cuda")), inputs)
        if kernel.supports(call) is not None:
            return
        out = torch.empty(self.want.flatten(1).shape, dtype=torch.float8_e4m3fn, device="cuda")
        bound = kernel.bind(call)
        self.measure(
            f"{kernel.name}, context in fp8",
            lambda: bound(inputs, [out, None, None]),
            lambda: (out.float() * by).unflatten(1, (case.heads, -1)),
            (self.want, by_name(FP8).tolerance),
        )

    def in_eight_bits(self) -> None:
        """Attention in int8 and float8_e4m3: made of floats by scales that are found or given, and eight bits in and
        out. Scales of float8_e4m3 leave room for as much again, as those of a build do.

        The first sequence is held to what the operator's reference gives for it: over many keys steps of 1/127 lose
        most of a row, which is how the scheme is, and no fault of a kernel.
        """
        case = self.case
        if case.dtype == torch.float32 or self.longest > MOST_IN_BYTES:
            return
        largest, widest = self.qkv.abs().max().float(), self.want.abs().max()
        scale, by = largest / 127, widest / 127
        scale8, by8 = 2 * largest / MOST, 2 * widest / MOST
        stored = (self.qkv.float() / scale).round().to(torch.int8)
        stored8 = (self.qkv.float() / scale8).to(torch.float8_e4m3fn)
        shared = {"num_heads": case.heads, "layout": "T (three N D)", "kind": case.kind}
        step, fp8 = {"dq_probs": 1 / 127}, {"eight_bits": FP8}
        variants: list[tuple[str, torch.Tensor, torch.Tensor | None, torch.Tensor | None, dict[str, Any]]] = [
            ("int8, scales found", self.qkv, None, None, {}),
            ("int8, scales given", self.qkv, scale, None, {}),
            ("int8 in and out", stored, scale, by, {}),
            ("int8 in and out, dq_probs", stored, scale, by, step),
            ("the same with use_int8_scale_max", stored, scale, by, {**step, "use_int8_scale_max": True}),
            ("fp8, scales found", self.qkv, None, None, fp8),
            ("fp8, scales given", self.qkv, scale8, None, fp8),
            ("fp8 in and out", stored8, scale8, by8, fp8),
        ]
        longest = torch.tensor(self.longest, dtype=torch.int32)
        for name, qkv, qkv_scale, context_scale, more in variants:
            inputs = [qkv, None, None, None, self.cu, longest, None, qkv_scale, context_scale]
            call = call_of(QUANT, inputs, {**shared, **more}, (True,), device_of("cuda"))
            call = with_constants(call, inputs)
            for kernel in kernels_of(QUANT, "cuda"):
                wanted = not self.words or any(word in f"{kernel.name}, {name}" for word in self.words)
                if wanted and kernel.supports(call) is None:
                    self._in_eight_bits(kernel, name, call, inputs)

    def _in_eight_bits(self, kernel: Kernel, name: str, call: Call, inputs: Sequence[torch.Tensor | None]) -> None:
        (result,), by = call.outputs, inputs[8]
        assert result is not None
        out = torch.empty(self.want.flatten(1).shape, dtype=result.type.torch, device="cuda")
        bound = kernel.bind(call)

        def shown() -> torch.Tensor:
            wide = out if by is None else out.float() * by
            return wide.unflatten(1, (self.case.heads, -1))

        want = self._scheme(inputs, dict(call.attributes))
        wide = want if by is None else want * float(by)
        checked = wide.to(out.device).float(), IN_FP8 if result.dtype == FP8 else IN_BYTES
        self.measure(f"{kernel.name}, {name}", lambda: bound(inputs, [out]), shown, checked)

    def _scheme(self, inputs: Sequence[torch.Tensor | None], attributes: dict[str, Any]) -> torch.Tensor:
        """What the reference of attention in eight bits gives for the first sequence, `[S, N, D]` in float64."""
        count = self.case.lengths[0]
        qkv = inputs[0]
        assert qkv is not None
        own = list(inputs)
        own[0] = qkv[:count] if qkv.itemsize == 1 else qkv[:count].double()
        own[4] = torch.tensor([0, count], dtype=torch.int32, device=qkv.device)
        own[5] = torch.tensor(count, dtype=torch.int32)
        found = QUANT.reference(*own, **attributes)
        context = found[0] if isinstance(found, tuple) else found
        return context.double().unflatten(1, (self.case.heads, -1))

    def apart(self, kernel: Kernel) -> None:
        """One of the kernels of Attention on heads that lie apart: each is a sequence of one head."""
        case = self.case
        q, k, v = (x.reshape(-1, case.size) for x in self._padded_parts(True))
        count = len(case.lengths) * case.heads
        bounds = torch.arange(count + 1, dtype=torch.int32, device="cuda") * self.longest
        longest = torch.tensor(self.longest, dtype=torch.int32)
        inputs = [q, k, v, *[None] * 5, bounds, None, longest, None, None]
        attributes = {"num_heads": 1, "num_kv_heads": 1, "layout": "T (N D)", "kind": case.kind}
        call = call_of(ATTENTION, inputs, attributes, (True, False, False, False), device_of("cuda"))
        if kernel.supports(call) is not None:
            return
        out = torch.full_like(q, torch.nan)
        bound = kernel.bind(call)

        def result() -> torch.Tensor:
            return out.view(-1, case.heads, self.longest, case.size).transpose(1, 2).flatten(0, 1)

        self.measure(f"{kernel.name}, heads apart", lambda: bound(inputs, [out, None, None, None]), result)

    def _padded_parts(self, apart: bool) -> list[torch.Tensor]:
        """Queries, keys and values `[B, N, S, D]`: views of the projection, or each contiguous."""
        views = [x.unflatten(0, (-1, self.longest)).transpose(1, 2) for x in self.parts]
        return [x.contiguous() for x in views] if apart else views

    def peers(self, flashinfer: bool) -> None:
        """What PyTorch has: padded kernels where lengths are equal, its packed ones everywhere; FlashInfer if asked."""
        case, causal = self.case, self.case.kind == "causal"
        if case.even:
            for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
                self._padded(backend.name.lower(), backend, *self._padded_parts(False), causal)
                self._padded(f"{backend.name.lower()}, heads apart", backend, *self._padded_parts(True), causal)
            self._flex(*self._padded_parts(True), causal)
        self._varlen(causal)
        if flashinfer and importlib.util.find_spec("flashinfer") is not None:
            self._flashinfer(causal)

    def _padded(self, name: str, backend: SDPBackend, q: Any, k: Any, v: Any, causal: bool) -> None:
        def run() -> torch.Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

        self.measure(f"torch {name}", run, lambda: run().transpose(1, 2).flatten(0, 1))

    def _flex(self, q: Any, k: Any, v: Any, causal: bool) -> None:
        if causal or self.longest > 512:
            return  # compiling it for every case would take most of the run
        from torch.nn.attention.flex_attention import flex_attention

        compiled = torch.compile(flex_attention)
        self.measure("torch flex", lambda: compiled(q, k, v), lambda: compiled(q, k, v).transpose(1, 2).flatten(0, 1))

    def _varlen(self, causal: bool) -> None:
        try:
            from torch.nn.attention.varlen import varlen_attn
        except ImportError:
            return
        q, k, v = (x.contiguous() for x in self.parts)
        window = {"window_size": (-1, 0)} if causal else {}

        def run() -> torch.Tensor:
            return varlen_attn(q, k, v, self.cu, self.cu, self.longest, self.longest, **window)

        self.measure("torch varlen", run, run)

    def _flashinfer(self, causal: bool) -> None:
        q, k, v = self.parts
        run = ragged_attention(q.contiguous(), k.contiguous(), v.contiguous(), self.cu, causal)
        self.measure("flashinfer", run, run)

    def tiles(self) -> None:
        """The streaming kernel with every tile size."""
        kernel = next(k for k in kernels_of(OP, "cuda") if k.name == "triton.attention")
        chosen = gpu.plain_tile
        options = [
            Tile(queries, keys, queries // 16, stages, peel)
            for queries in (64, 128)
            for keys in (32, 64, 128)
            for stages in (1, 2, 3)
            for peel in (True, False)
        ] + [Tile(128, 64, 4, 2), Tile(128, 32, 4, 2), Tile(64, 64, 8, 2), Tile(16, 64, 4, 2), Tile(16, 128, 4, 2)]
        try:
            for tile in options:
                gpu.plain_tile = lambda *numbers, tile=tile: tile
                self.ours(kernel, f"tile {tile.queries}x{tile.keys} w{tile.warps} s{tile.stages} peel {tile.peel:d}")
        finally:
            gpu.plain_tile = chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--cases", nargs="+", default=[], help="only cases whose names contain one of these")
    parser.add_argument("--kernels", nargs="+", default=[], help="only kernels whose names contain one of these")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument(
        "--flashinfer", nargs="+", default=[""], metavar="WORD", help="only for such cases: it compiles for minutes"
    )
    parser.add_argument("--tiles", action="store_true")
    options = parser.parse_args()
    record: dict[str, Any] = {
        "what": "attention on a GPU",
        "machine": {**machine(), "gpu": asdict(gpu_facts())},
        "cudnn": torch.backends.cudnn.version(),
        "rows": [],
    }
    for case in cases():
        if options.cases and not any(word in case.name for word in options.cases):
            continue
        bench = Bench(case, options.kernels)
        for kernel in kernels_of(OP, "cuda"):
            bench.ours(kernel)
            if kernel.name == "hopper.attention":
                bench.writing_fp8(kernel)
        bench.in_eight_bits()

        if case.even:
            for kernel in kernels_of(ATTENTION, "cuda"):
                if kernel.name.startswith("hopper."):
                    bench.apart(kernel)
        if options.tiles:
            bench.tiles()
        if not options.no_peers:
            bench.peers(any(word in case.name for word in options.flashinfer))
        record["rows"] += bench.rows
        if options.output:
            options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
