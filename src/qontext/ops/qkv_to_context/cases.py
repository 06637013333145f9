"""Inputs of QKVToContext for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from ..attention_common.case_inputs import additive, cumulative, holes, layout_name, normal
from ..attention_common.layouts import QKV_LAYOUTS, axes_of, is_packed
from ..declare import Case
from ..eight_bits import KINDS, NONE

Tensor = torch.Tensor
Make = Callable[[torch.Generator, torch.dtype], Tensor]
PLAIN, PACKED = "B S (three N D)", "T (three N D)"
_RAGGED = (3, 0, 7, 1)


def _case(
    name: str,
    layout: str = PLAIN,
    sizes: tuple[int, int, int, int] = (2, 7, 3, 8),
    *,
    sequences: Sequence[int] = (),
    lengths: Sequence[int] | None = None,
    mask: Make | None = None,
    bias: Make | None = None,
    prefix: Sequence[int] | None = None,
    outputs: tuple[str, ...] = (),
    bench: bool = False,
    factor: bool = False,
    **attributes: Any,
) -> Case:
    """One case: `sizes` are B, S, N, D; `sequences` are the lengths of packed ones (then B and S say nothing).

    factor: columns of a context in eight bits are multiplied first.
    """
    batch, length, heads, size = sizes
    key_heads = attributes.get("num_kv_heads") or heads
    named = {"B": batch, "S": length, "T": sum(sequences), "N": heads, "three": 3, "D": size, "1": 1}
    named |= {"three N D": (heads + 2 * key_heads) * size, "N three D": 3 * heads * size}
    shape = [named[axis] for axis in axes_of(layout)]

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[Tensor | None]:
        packed = cumulative(sequences) if is_packed(layout) else (None, None)
        return [
            normal(generator, dtype, *shape),
            None if lengths is None else torch.tensor(lengths, dtype=torch.int32),
            mask(generator, dtype) if mask else None,
            bias(generator, dtype) if bias else None,
            *packed,
            None if prefix is None else torch.tensor(prefix, dtype=torch.int64),
            torch.tensor(0.04) if kind != NONE else None,
            torch.tensor(117, dtype=torch.uint8) if kind == "int8" else None,
            torch.rand(heads * size, generator=generator) + 0.5 if factor else None,
        ]

    kind = attributes.get("eight_bits", NONE)
    attributes = {"num_heads": heads, "layout": layout, **attributes}
    return Case(name, make, attributes, outputs, bench=bench, levels=255 if kind == "int8" else 0)


def cases() -> Iterable[Case]:
    yield from _layouts()
    yield from _sizes()
    yield from _masks()
    yield from _kinds()
    yield from _empty_rows()
    yield from _packed()
    yield from _outputs()
    yield from _eight_bits()
    yield from _bench()


def _layouts() -> Iterable[Case]:
    for layout in QKV_LAYOUTS:
        name = layout_name(layout)
        yield _case(f"layout_{name}", layout, sequences=_RAGGED)
    yield _case("grouped", sizes=(2, 9, 6, 8), num_kv_heads=2)
    yield _case("multi_query_packed", PACKED, sizes=(0, 0, 4, 16), sequences=(5, 2), num_kv_heads=1)
    yield _case("grouped_sequence_first", "S B (three N D)", sizes=(2, 9, 6, 8), num_kv_heads=3)


def _sizes() -> Iterable[Case]:
    for length in (1, 33, 100, 312):
        yield _case(f"length_{length}", sizes=(1, length, 2, 32))
    for size in (8, 24, 52, 56, 100, 104, 128, 256):
        yield _case(f"head_size_{size}", "B S (N three D)", sizes=(2, 19, 2, size))
    yield _case("one_head", sizes=(3, 17, 1, 64))
    yield _case("many_heads", sizes=(1, 5, 16, 24))
    yield _case("no_sequences", sizes=(0, 5, 2, 8))
    yield _case("scale", scale=0.25)
    yield _case("softcap", softcap=1.5, scale=1.0)


def _masks() -> Iterable[Case]:
    yield _case("lengths", sizes=(3, 33, 2, 16), lengths=(33, 1, 20))
    yield _case("lengths_sequence_first", "S B (N three D) 1 1", sizes=(3, 12, 2, 16), lengths=(5, 12, 1))
    yield _case("mask_keys", mask=lambda g, t: holes(g, 2, 7))
    yield _case("mask_keys_int64", mask=lambda g, t: holes(g, 2, 7).long() * 3)
    yield _case("mask_keys_ignored", mask=lambda g, t: ~holes(g, 2, 7), mask_means="ignore")
    yield _case("mask_matrix", mask=lambda g, t: holes(g, 2, 7, 7))
    yield _case("mask_matrix_uint8", mask=lambda g, t: holes(g, 1, 7, 7).byte() * 255)
    yield _case("mask_matrix_float", mask=lambda g, t: holes(g, 2, 7, 7).to(t) * -0.5, mask_means="attend")
    yield _case("mask_matrix_additive", mask=lambda g, t: additive(holes(g, 2, 7, 7), -1e4, t))
    yield _case("mask_row_ignored_int8", mask=lambda g, t: (~holes(g, 2, 1, 7)).char() * -1, mask_means="ignore")
    yield _case("mask_keys_additive", mask=lambda g, t: additive(holes(g, 2, 7), -1e4, t))
    yield _case("mask_keys_infinite", mask=lambda g, t: additive(holes(g, 2, 7), -torch.inf, t))
    yield _case("mask_full", mask=lambda g, t: holes(g, 2, 3, 7, 7))
    yield _case("mask_one_head", mask=lambda g, t: holes(g, 2, 1, 7, 7))
    yield _case("mask_shared", mask=lambda g, t: holes(g, 1, 1, 7, 7))
    yield _case("mask_row_additive", mask=lambda g, t: additive(holes(g, 2, 1, 1, 7), -1e3, t))
    yield _case("mask_float32", mask=lambda g, t: normal(g, torch.float32, 1, 1, 7, 7))
    yield _case("bias", bias=lambda g, t: normal(g, t, 1, 3, 7, 7))
    yield _case("bias_larger", bias=lambda g, t: normal(g, t, 1, 3, 16, 16))
    yield _case("bias_batch_float32", bias=lambda g, t: normal(g, torch.float32, 2, 3, 7, 7))
    yield _case(
        "bias_mask_lengths",
        sizes=(2, 21, 3, 8),
        lengths=(21, 13),
        mask=lambda g, t: holes(g, 2, 1, 21, 21),
        bias=lambda g, t: normal(g, t, 1, 3, 21, 21),
    )
    yield _case(
        "bias_and_additive_mask",
        mask=lambda g, t: additive(holes(g, 2, 7), -1e4, t),
        bias=lambda g, t: normal(g, t, 1, 3, 7, 7),
    )


def _kinds() -> Iterable[Case]:
    yield _case("causal", kind="causal")
    yield _case("causal_long", sizes=(1, 130, 2, 16), kind="causal")
    yield _case("causal_lengths", sizes=(2, 33, 2, 16), lengths=(33, 9), kind="causal")
    yield _case("prefix", sizes=(3, 20, 2, 16), prefix=(0, 5, 20), kind="prefix")
    yield _case("prefix_lengths", sizes=(2, 20, 2, 16), prefix=(4, 9), lengths=(20, 6), kind="prefix")
    yield _case("window", sizes=(1, 40, 2, 16), window_left=3, window_right=5)
    yield _case("window_left_causal", sizes=(2, 40, 2, 16), window_left=6, kind="causal")
    yield _case("window_right_lengths", sizes=(2, 40, 2, 16), window_right=2, lengths=(40, 11))


def _empty_rows() -> Iterable[Case]:
    for how in ("zeros", "uniform", "as_unmasked"):
        yield _case(f"empty_lengths_{how}", sizes=(3, 9, 2, 16), lengths=(4, 0, 9), empty_row=how)
        yield _case(
            f"empty_keys_{how}",
            mask=lambda g, t: torch.tensor([[True] * 4 + [False] * 3, [False] * 7]),
            empty_row=how,
        )
        yield _case(f"empty_rows_{how}", mask=lambda g, t: _some_empty(g), empty_row=how)
        yield _case(
            f"empty_causal_{how}", mask=lambda g, t: torch.arange(7).expand(2, 7) > 2, kind="causal", empty_row=how
        )
    yield _case("empty_infinite", mask=lambda g, t: additive(_some_empty(g), -torch.inf, t))
    yield _case("empty_finite", mask=lambda g, t: additive(_some_empty(g), -1e3, t))


def _some_empty(generator: torch.Generator) -> Tensor:
    mask = holes(generator, 2, 3, 7, 7)
    mask[0, 1, 3] = False
    mask[1, :, 0] = False
    return mask


def _eight_bits() -> Iterable[Case]:
    for kind in KINDS:
        short = "int8" if kind == "int8" else "fp8"
        yield _case(f"{short}_packed", PACKED, (0, 0, 2, 64), sequences=(5, 33, 0, 70), eight_bits=kind)
        yield _case(f"{short}_factor", sizes=(2, 19, 3, 24), lengths=(19, 4), factor=True, eight_bits=kind)
        yield _case(f"{short}_masked", mask=lambda g, t: holes(g, 2, 7), eight_bits=kind)
        # Heads enough for the kernel whose programs stay.
        many = (0, 0, 8, 64)
        yield _case(f"{short}_many", PACKED, many, sequences=(70, 200) * 40, factor=True, eight_bits=kind)


def _packed() -> Iterable[Case]:
    some = (5, 33, 1, 12)
    sizes = (0, 0, 2, 16)
    yield _case("packed_one", PACKED, sizes, sequences=(19,))
    yield _case("packed_none", PACKED, sizes, sequences=())
    yield _case("packed_causal", PACKED, sizes, sequences=some, kind="causal")
    yield _case("packed_prefix", "T (N three D)", sizes, sequences=some, prefix=(5, 0, 1, 3), kind="prefix")
    yield _case("packed_window", PACKED, sizes, sequences=some, window_left=2, window_right=2)
    yield _case("packed_bias", PACKED, sizes, sequences=some, bias=lambda g, t: normal(g, t, 1, 2, 40, 40))
    yield _case("packed_mask", PACKED, sizes, sequences=some, mask=lambda g, t: holes(g, 4, 1, 33, 33))
    yield _case("packed_key_mask", PACKED, sizes, sequences=some, mask=lambda g, t: holes(g, 4, 33))
    yield _case(
        "packed_mask_ignored",
        PACKED,
        sizes,
        sequences=some,
        mask=lambda g, t: ~holes(g, 1, 33, 33),
        mask_means="ignore",
    )
    yield _case("packed_softcap", "T (N three D)", sizes, sequences=some, softcap=2.0)


def _outputs() -> Iterable[Case]:
    everything = ("context", "scores", "values")
    yield _case("outputs", outputs=everything, mask=lambda g, t: additive(holes(g, 2, 7), -1e4, t))
    yield _case("outputs_values", "S B (three N D)", outputs=("context", "values"), lengths=(7, 2))
    yield _case("outputs_scores", "B S N three D", outputs=("context", "scores"), lengths=(7, 2), kind="causal")
    yield _case("outputs_packed", PACKED, sequences=_RAGGED, outputs=everything)
    yield _case("outputs_grouped", sizes=(2, 5, 4, 8), num_kv_heads=2, outputs=everything, softcap=3.0)


def _bench() -> Iterable[Case]:
    for model, heads in (("base", 12), ("large", 16)):
        for batch, length in ((1, 128), (8, 128), (1, 384)):
            yield _case(f"bert_{model}_b{batch}_s{length}", sizes=(batch, length, heads, 64), bench=True)
    yield _case("bert_base_b8_s128_lengths", sizes=(8, 128, 12, 64), lengths=tuple(range(16, 144, 16)), bench=True)
    ragged = (10, 100, 34, 61, 128, 77, 19, 52, 45, 90, 23, 66, 189, 31, 58, 40)
    yield _case("bert_base_packed", PACKED, (0, 0, 12, 64), sequences=ragged, bench=True)
