"""Times the context phase of GptAttention on one GPU: prompts put in place, cached and attended to.

Usage: PYTHONPATH=src python3 bench/gpu_context.py [--output FILE]

Beside it stand the same in pieces: rotation of queries and keys, cuDNN's attention (through torch, sequence by sequence
where lengths differ), and the copy of keys and values into a contiguous cache. Times are means over calls that follow
one another without a gap, host included where it is slower than the device; results are checked in float32 first.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from qontext.benchmark.machine import machine
from qontext.dtypes import from_torch, relative_rms
from qontext.ops.declare import Op, call_of
from qontext.ops.device import device_of
from qontext.ops.eager import candidates
from qontext.ops.gpt_attention.op import OP
from qontext.ops.gpt_attention.rotary import Rotary
from qontext.ops.gpt_attention.rows import INPUTS
from qontext.ops.gpu_facts import gpu_facts
from qontext.ops.rotary_embedding.op import OP as ROTARY

HEADS, KV_HEADS, SIZE, PAGE = 32, 8, 128, 16
DTYPE = torch.bfloat16
CASES: dict[str, list[int]] = {
    "8 x 2048": [2048] * 8,
    "1 x 8192": [8192],
    "4 x 8192": [8192] * 4,
    "ragged, 1024 to 4096": [1024, 4096, 1536, 2048, 3072, 1280, 2304, 1024],
    "ragged, 64 to 2048": [64, 2048, 300, 900, 1500, 128, 700, 2000, 80, 1100],
}


class Case:
    def __init__(self, lengths: Sequence[int]):
        generator = torch.Generator("cuda").manual_seed(0)
        self.lengths, total = list(lengths), sum(lengths)
        self.width = (HEADS + 2 * KV_HEADS) * SIZE
        self.qkv = torch.randn(total, self.width, generator=generator, device="cuda").to(DTYPE)
        pages = [-(-n // PAGE) for n in lengths]
        order = torch.randperm(sum(pages), generator=torch.Generator().manual_seed(0)).int()
        self.table = torch.zeros(len(lengths), max(pages), dtype=torch.int32)
        for r, part in enumerate(order.split(pages)):
            self.table[r, : len(part)] = part
        self.table = self.table.cuda()
        self.cache = torch.zeros(sum(pages), 2, KV_HEADS, PAGE, SIZE, dtype=DTYPE, device="cuda")
        self.flat = torch.zeros(len(lengths), 2, KV_HEADS, max(lengths), SIZE, dtype=DTYPE, device="cuda")
        positions = torch.cat([torch.arange(n) for n in lengths])
        cos, sin = Rotary(SIZE, "half").angles(positions, 0)
        self.cos, self.sin = cos.to("cuda", torch.float32), sin.to("cuda", torch.float32)
        self.low = self.cos.to(DTYPE), self.sin.to(DTYPE)
        self.flops = sum(2.0 * HEADS * SIZE * n * (n + 1) for n in lengths)

    def turner(self, heads: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """What turns heads side by side `[T, heads D]`."""
        x = self.qkv[:, : heads * SIZE]
        run = bound(ROTARY, [x, *self.low, None], {"layout": "T (N D)", "pairing": "half", "num_heads": heads}, (True,))
        out = torch.empty(x.shape, dtype=DTYPE, device="cuda")

        def turned(x: torch.Tensor) -> torch.Tensor:
            found = run([x, *self.low, None], [out])
            return found if isinstance(found, torch.Tensor) else found[0]

        return turned

    def reference(self) -> torch.Tensor:
        x = self.qkv.float().unflatten(-1, (-1, SIZE))
        c, s = (torch.cat([t, t], -1)[:, None] for t in (self.cos, self.sin))
        half = SIZE // 2
        y = x * c + torch.cat([-x[..., half:], x[..., :half]], -1) * s
        q, k, v = y[:, :HEADS].to(DTYPE).float(), y[:, HEADS : HEADS + KV_HEADS].to(DTYPE).float(), x[:, -KV_HEADS:]
        done = []
        for part in zip(*(t.split(self.lengths) for t in (q, k, v)), strict=True):
            a, b, d = (t.transpose(0, 1)[None] for t in part)
            done.append(F.scaled_dot_product_attention(a, b, d, is_causal=True, enable_gqa=True)[0].transpose(0, 1))
        return torch.cat(done).flatten(1)

    def ours(self) -> Callable[[], torch.Tensor]:
        counts = torch.tensor(self.lengths, dtype=torch.int32)
        given = dict.fromkeys(INPUTS) | {
            "qkv": self.qkv,
            "past": self.cache,
            "past_lengths": torch.zeros_like(counts),
            "query_lengths": counts,
            "block_table": self.table,
        }
        attributes = {
            "num_heads": HEADS,
            "num_kv_heads": KV_HEADS,
            "head_size": SIZE,
            "position": "rope_gpt_neox",
            "rotary_dim": SIZE,
        }
        run = bound(OP, list(given.values()), attributes, (True, True))

        def step() -> torch.Tensor:
            context = run(list(given.values()))[0]
            assert context is not None
            return context

        return step

    def pieces(self) -> Callable[[], torch.Tensor]:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, batch: int) -> torch.Tensor:
            a, b, c = (x.unflatten(0, (batch, -1)).unflatten(-1, (-1, SIZE)).transpose(1, 2) for x in (q, k, v))
            with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
                context = F.scaled_dot_product_attention(a, b, c, is_causal=True, enable_gqa=True)
            return context.transpose(1, 2).flatten(2).flatten(0, 1)

        turn_q, turn_k = self.turner(HEADS), self.turner(KV_HEADS)

        def run() -> torch.Tensor:
            q, k, v = self.qkv.split([HEADS * SIZE, KV_HEADS * SIZE, KV_HEADS * SIZE], -1)
            q, k = turn_q(q), turn_k(k)
            starts = [sum(self.lengths[:r]) for r in range(len(self.lengths))]
            for part, x in ((0, k), (1, v)):
                heads = x.unflatten(-1, (KV_HEADS, SIZE))
                if len(set(self.lengths)) == 1:
                    self.flat[:, part].copy_(heads.unflatten(0, (len(self.lengths), -1)).transpose(1, 2))
                    continue
                for r, (start, n) in enumerate(zip(starts, self.lengths, strict=True)):
                    self.flat[r, part, :, :n].copy_(heads[start : start + n].transpose(0, 1))
            if len(set(self.lengths)) == 1:
                return attend(q, k, v, len(self.lengths))
            return torch.cat([attend(*p, 1) for p in zip(*(t.split(self.lengths) for t in (q, k, v)), strict=True)])

        return run


def bound(op: Op, inputs: list[torch.Tensor | None], attributes: dict[str, Any], wanted: tuple[bool, ...]) -> Any:
    """The first kernel that can, bound."""
    call = call_of(op, inputs, attributes, wanted, device_of("cuda"))
    return candidates(op, call)[0][0].bind(call)


def mean_us(run: Callable[[], object], calls: int = 12) -> float:
    """Microseconds of a call among many that follow one another."""
    for _ in range(3):
        run()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e3 / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    record: dict[str, Any] = {
        "what": f"context phase, {HEADS}/{KV_HEADS} heads of {SIZE}, {from_torch(DTYPE).name}, causal, pages of {PAGE}",
        "machine": {**machine(), "gpu": asdict(gpu_facts())},
        "rows": [],
    }
    for name, lengths in CASES.items():
        case = Case(lengths)
        want = case.reference()
        for kind, run in (("triton.gpt_attention", case.ours()), ("rotation, cuDNN, copies", case.pieces())):
            row: dict[str, Any] = {"case": name, "kernel": kind}
            try:
                row["error"] = relative_rms(run(), want)
                if not row["error"] <= from_torch(DTYPE).tolerance:
                    row["failed"] = f"relative error {row['error']:.2e}"
                else:
                    row["us"] = mean_us(run)
                    row["tflops"] = case.flops / row["us"] / 1e6
            except Exception as error:  # the other rows are still worth having
                row["failed"] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:150]}"
            record["rows"].append(row)
            shown = row.get("failed") or f"{row['us']:9.1f} us {row['tflops']:6.0f} TFLOPS, error {row['error']:.1e}"
            print(f"{name:24s} {kind:26s} {shown}", flush=True)
            if options.output:
                options.output.write_text(json.dumps(record, indent=1) + "\n")
        del case, want
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
