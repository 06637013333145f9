"""Inputs of Attention for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from ..attention_common.case_inputs import additive, cumulative, holes, layout_name, normal
from ..attention_common.layouts import ATTENTION_LAYOUTS, axes_of, is_packed
from ..declare import Case

Tensor = torch.Tensor
Make = Callable[[torch.Generator, torch.dtype], Tensor]
# (B, S, Skv, N, Nkv, D, Dv)
Sizes = tuple[int, int, int, int, int, int, int]
SMALL: Sizes = (2, 5, 7, 3, 3, 8, 8)


def _shape(layout: str, batch: int, length: int, heads: int, size: int) -> list[int]:
    named = {"B": batch, "S": length, "T": length, "N": heads, "D": size, "N D": heads * size}
    return [named[axis] for axis in axes_of(layout)]


def _case(
    name: str,
    layout: str = "B S (N D)",
    sizes: Sizes = SMALL,
    *,
    queries: Sequence[int] = (),
    keys: Sequence[int] | None = None,
    past: int | None = None,
    key_lengths: Sequence[int] | None = None,
    mask: Make | None = None,
    bias: Make | None = None,
    prefix: Sequence[int] | None = None,
    outputs: tuple[str, ...] = (),
    bench: bool = False,
    **attributes: Any,
) -> Case:
    """One case. `queries` and `keys` are the lengths of packed sequences, keys None where they are the queries'."""
    batch, length, key_length, heads, key_heads, size, value_size = sizes
    packed = is_packed(layout)
    rows = sum(queries) if packed else length
    key_rows = sum(queries if keys is None else keys) if packed else key_length

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[Tensor | None]:
        cu_q, max_q = cumulative(queries) if packed else (None, None)
        cu_kv, max_kv = cumulative(keys) if packed and keys is not None else (None, None)
        return [
            normal(generator, dtype, *_shape(layout, batch, rows, heads, size)),
            normal(generator, dtype, *_shape(layout, batch, key_rows, key_heads, size)),
            normal(generator, dtype, *_shape(layout, batch, key_rows, key_heads, value_size)),
            mask(generator, dtype) if mask else None,
            bias(generator, dtype) if bias else None,
            None if past is None else normal(generator, dtype, batch, key_heads, past, size),
            None if past is None else normal(generator, dtype, batch, key_heads, past, value_size),
            None if key_lengths is None else torch.tensor(key_lengths, dtype=torch.int64),
            cu_q,
            cu_kv,
            max_q,
            max_kv,
            None if prefix is None else torch.tensor(prefix, dtype=torch.int32),
        ]

    attributes = {"layout": layout, **attributes}
    if "N" not in axes_of(layout):
        attributes |= {"num_heads": heads, "num_kv_heads": key_heads}
    return Case(name, make, attributes, outputs, bench=bench)


def cases() -> Iterable[Case]:
    yield from _layouts()
    yield from _sizes()
    yield from _masks()
    yield from _kinds()
    yield from _past()
    yield from _empty_rows()
    yield from _packed()
    yield from _outputs()
    yield from _bench()


def _layouts() -> Iterable[Case]:
    for layout in ATTENTION_LAYOUTS:
        name = layout_name(layout)
        yield _case(f"layout_{name}", layout, queries=(3, 0, 7, 1))
        if not is_packed(layout):
            yield _case(f"grouped_{name}", layout, (2, 5, 9, 6, 2, 8, 24))


def _sizes() -> Iterable[Case]:
    yield _case("cross_1_1500", "B N S D", (1, 1, 1500, 2, 2, 64, 64))
    yield _case("cross_100_33", sizes=(1, 100, 33, 2, 2, 32, 32))
    yield _case("multi_query", "B S N D", (2, 4, 6, 4, 1, 16, 16))
    yield _case("value_larger", sizes=(2, 9, 11, 2, 2, 24, 40))
    yield _case("value_smaller", "B N S D", (1, 9, 11, 4, 2, 56, 8))
    yield _case("one_token", "B N S D", (1, 1, 1, 1, 1, 8, 8))
    for size in (52, 100, 128, 256):
        yield _case(f"head_size_{size}", sizes=(1, 17, 19, 2, 2, size, size))
    yield _case("scale_softcap", scale=0.5, softcap=1.5)


def _masks() -> Iterable[Case]:
    yield _case("key_lengths", sizes=(3, 4, 33, 2, 2, 16, 16), key_lengths=(33, 4, 20))
    yield _case("mask_keys", mask=lambda g, t: holes(g, 2, 7))
    yield _case("mask_keys_int64", mask=lambda g, t: holes(g, 2, 7).long() * 3)
    yield _case("mask_keys_ignored", mask=lambda g, t: ~holes(g, 2, 7), mask_means="ignore")
    yield _case("mask_matrix", mask=lambda g, t: holes(g, 2, 5, 7))
    yield _case("mask_matrix_uint8", mask=lambda g, t: holes(g, 1, 5, 7).byte() * 255)
    yield _case("mask_matrix_float", mask=lambda g, t: holes(g, 2, 5, 7).to(t) * -0.5, mask_means="attend")
    yield _case("mask_matrix_additive", mask=lambda g, t: additive(holes(g, 2, 5, 7), -1e4, t))
    yield _case("mask_row_ignored_int8", mask=lambda g, t: (~holes(g, 2, 1, 7)).char() * -1, mask_means="ignore")
    yield _case("mask_keys_additive", mask=lambda g, t: additive(holes(g, 2, 7), -1e4, t))
    yield _case("mask_full", "B N S D", mask=lambda g, t: holes(g, 2, 3, 5, 7))
    yield _case("mask_shared_infinite", mask=lambda g, t: additive(holes(g, 1, 1, 5, 7), -torch.inf, t))
    yield _case("mask_row", "S B (N D)", mask=lambda g, t: holes(g, 2, 1, 1, 7))
    yield _case("bias", bias=lambda g, t: normal(g, t, 1, 3, 5, 7))
    yield _case("bias_larger_float32", bias=lambda g, t: normal(g, torch.float32, 2, 3, 9, 9))
    yield _case(
        "bias_mask",
        "B S N D",
        mask=lambda g, t: additive(holes(g, 2, 1, 5, 7), -1e4, t),
        bias=lambda g, t: normal(g, t, 1, 3, 5, 7),
    )


def _kinds() -> Iterable[Case]:
    wide: Sizes = (2, 6, 40, 2, 2, 16, 16)
    yield _case("causal", sizes=(2, 33, 33, 2, 2, 16, 16), kind="causal")
    yield _case("causal_top_left", sizes=(2, 5, 9, 2, 1, 16, 16), kind="causal")
    yield _case("causal_key_lengths", sizes=wide, key_lengths=(40, 9), kind="causal")
    yield _case("causal_short_keys", sizes=wide, key_lengths=(2, 6), kind="causal")
    yield _case("window_key_lengths", "B N S D", wide, key_lengths=(40, 21), window_left=5, window_right=2)
    yield _case("window_right", sizes=wide, window_right=3)
    yield _case("window_causal", sizes=(1, 40, 40, 2, 1, 16, 16), window_left=4, kind="causal")
    yield _case("prefix", sizes=(2, 20, 20, 2, 2, 16, 16), prefix=(0, 7), kind="prefix")
    yield _case("prefix_key_lengths", sizes=wide, key_lengths=(40, 9), prefix=(38, 3), kind="prefix")


def _past() -> Iterable[Case]:
    step: Sizes = (2, 1, 1, 4, 2, 16, 24)
    everything = ("context", "present_key", "present_value")
    yield _case("past", sizes=step, past=12, kind="causal", outputs=everything)
    yield _case("past_several", "B N S D", (2, 5, 5, 4, 4, 16, 16), past=7, kind="causal", outputs=everything)
    yield _case("past_empty", "B N S D", (2, 5, 5, 4, 4, 16, 16), past=0, outputs=everything)
    yield _case("past_window", "B S N D", (1, 6, 6, 2, 2, 16, 16), past=9, window_left=4, kind="causal")
    yield _case("past_mask", sizes=step, past=12, mask=lambda g, t: holes(g, 2, 1, 1, 13))
    yield _case("past_prefix", "S B (N D)", (2, 3, 3, 2, 2, 8, 8), past=4, prefix=(6, 0), kind="prefix")
    yield _case("present_without_past", "S B (N D)", outputs=everything)


def _empty_rows() -> Iterable[Case]:
    for how in ("zeros", "uniform", "as_unmasked"):
        yield _case(f"empty_{how}", mask=lambda g, t: _some_empty(g), empty_row=how)
        yield _case(
            f"empty_lengths_{how}", sizes=(3, 4, 9, 4, 2, 16, 16), key_lengths=(4, 0, 9), kind="causal", empty_row=how
        )
    yield _case("empty_infinite", "B N S D", mask=lambda g, t: additive(_some_empty(g), -torch.inf, t))
    yield _case("empty_probs", mask=lambda g, t: _some_empty(g), outputs=("context", "scores"), scores_mode="probs")


def _some_empty(generator: torch.Generator) -> Tensor:
    mask = holes(generator, 2, 3, 5, 7)
    mask[0, 1, 3] = False
    mask[1, :, 0] = False
    return mask


def _packed() -> Iterable[Case]:
    layout, sizes = "T (N D)", (0, 0, 0, 4, 2, 16, 16)
    queries, keys = (5, 33, 1, 12), (9, 33, 40, 2)
    yield _case("packed_self", layout, sizes, queries=queries, kind="causal")
    yield _case("packed_cross", layout, sizes, queries=queries, keys=keys)
    yield _case("packed_cross_causal", layout, sizes, queries=queries, keys=keys, kind="causal")
    yield _case("packed_no_keys", layout, sizes, queries=(2, 3), keys=(0, 4))
    yield _case("packed_cross_window", layout, sizes, queries=queries, keys=keys, window_left=7, window_right=1)
    yield _case("packed_prefix", layout, sizes, queries=queries, prefix=(2, 30, 0, 0), kind="prefix")
    yield _case("packed_bias", layout, sizes, queries=queries, keys=keys, bias=lambda g, t: normal(g, t, 1, 4, 48, 48))
    yield _case("packed_mask", layout, sizes, queries=queries, mask=lambda g, t: holes(g, 1, 1, 33, 33))
    yield _case("packed_mask_matrix", layout, sizes, queries=queries, mask=lambda g, t: holes(g, 1, 33, 33).int())
    yield _case("packed_value_size", layout, (0, 0, 0, 2, 2, 24, 8), queries=queries, keys=keys)


def _outputs() -> Iterable[Case]:
    for mode in ("scaled", "capped", "masked", "probs"):
        yield _case(
            f"scores_{mode}",
            outputs=("context", "scores"),
            mask=lambda g, t: additive(holes(g, 2, 1, 5, 7), -torch.inf, t),
            softcap=2.0,
            scores_mode=mode,
        )
    yield _case("scores_packed", "T (N D)", queries=(3, 5), outputs=("context", "scores"), scores_mode="masked")


def _bench() -> Iterable[Case]:
    yield _case("base_b8_s128", sizes=(8, 128, 128, 12, 12, 64, 64), bench=True)
    yield _case("cross_b8_s64_skv512", sizes=(8, 64, 512, 12, 12, 64, 64), bench=True)
    yield _case("decode_b8_past1024", "B N S D", (8, 1, 1, 32, 8, 128, 128), past=1024, kind="causal", bench=True)
    yield _case("prefill_s512_grouped", "B N S D", (1, 512, 512, 32, 8, 128, 128), kind="causal", bench=True)
