"""Inputs of QuantQKVToContext for the conformance test and for timing: those of QKVToContext, and scales."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from ..attention_common.case_inputs import cumulative, normal
from ..declare import Case
from ..eight_bits import KINDS, held
from ..qkv_to_context.cases import cases as float_cases
from .reference import MOST

# Of QKVToContext's cases: layouts of each kind, masks, kinds and meanings of empty rows, and sizes that fill no vector.
_TAKEN = (
    "layout_T_NthreeD", "layout_T_threeND", "layout_S_B_NthreeD_1_1", "layout_B_S_N_three_D", "layout_B_S_threeND",
    "length_100", "head_size_52", "head_size_256", "no_sequences", "multi_query_packed", "softcap", "lengths",
    "mask_keys", "bias_mask_lengths", "causal_lengths", "prefix_lengths", "empty_lengths_zeros",
    "empty_lengths_uniform", "empty_lengths_as_unmasked", "empty_rows_uniform", "packed_none", "packed_causal",
    "packed_prefix", "packed_window", "packed_mask",
)  # fmt: skip
_SCALED = ("layout_T_NthreeD", "lengths", "packed_causal", "head_size_52")
# Without a token: in halves alone, since ONNX Runtime, which runs the float32 cases too, reduces what is empty to
# shapes that ONNX does not say.
_EMPTY = ("no_sequences", "packed_none")
_STEP = 1 / 127  # of TensorRT
# In float8_e4m3: each way of hiding keys, and sizes that fill no vector.
_IN_FLOATS = (
    "layout_T_threeND", "layout_B_S_N_three_D", "head_size_52", "head_size_256", "multi_query_packed", "softcap",
    "lengths", "mask_keys", "bias_mask_lengths", "causal_lengths", "prefix_lengths", "empty_lengths_zeros",
    "empty_lengths_as_unmasked", "empty_rows_uniform", "packed_causal", "packed_prefix", "packed_mask",
)  # fmt: skip
# Lengths beside the sizes of tiles, and one of none.
_MIXED = (70, 1, 0, 64, 65, 17)


def _with(
    case: Case,
    name: str,
    scale: float | Sequence[float] | None = None,
    context: float | None = None,
    stored: bool = False,
    kind: str = "int8",
    **attributes: object,
) -> Case:
    """The case with scales of the projection and the context; `stored`: with the projection in eight bits."""

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        inputs = list(case.make(generator, dtype))[:7]
        qkv = inputs[0]
        assert qkv is not None
        if stored and kind == "int8":
            inputs[0] = (qkv.float() / 0.03).round().clamp(-MOST, MOST).to(torch.int8)
        elif stored:
            inputs[0] = held(qkv, kind, torch.tensor(0.03))[0]
        scales = [None if s is None else torch.tensor(s, dtype=torch.float32) for s in (scale, context)]
        return [*inputs, *scales]

    dtypes = ("float32",) if stored else ("float16", "bfloat16") if name in _EMPTY else case.dtypes
    whole = {**case.attributes, "eight_bits": kind, **attributes}
    return replace(case, name=name, make=make, attributes=whole, dtypes=dtypes, levels=MOST)


def cases() -> Iterable[Case]:
    of_floats = {case.name: case for case in float_cases()}
    for name, case in of_floats.items():
        if name in _TAKEN or case.bench:
            yield _with(case, name)
        if name in _IN_FLOATS:
            yield _with(case, f"fp8_{name}", kind=KINDS[1])
    for name in _SCALED:
        case = of_floats[name]
        yield _with(case, f"{name}_static", 0.03)
        yield _with(case, f"{name}_bytes", 0.03, stored=True)
        yield _with(case, f"{name}_bytes_to_bytes", 0.03, 0.0213, stored=True, dq_probs=_STEP, use_int8_scale_max=True)
    few = of_floats["lengths"]
    yield _with(few, "scale_each", (0.03, 0.025, 0.04))
    yield _with(few, "cut", 0.004)
    yield _with(few, "step_of_probabilities", dq_probs=_STEP)
    yield _with(of_floats["causal_long"], "context_in_bytes", context=0.01)
    yield _with(of_floats["packed_causal"], "fine_step_of_probabilities", 0.03, dq_probs=1 / 400)
    yield _with(of_floats["packed_causal"], "bound_in_reach", 0.01, dq_probs=_STEP, use_int8_scale_max=True)
    yield _with(of_floats["packed_causal"], "bound_out_of_reach", 0.3, dq_probs=_STEP, use_int8_scale_max=True)
    yield _with(of_floats["bert_base_packed"], "bert_base_packed_bytes", 0.03, 0.0213, stored=True)
    yield from _fp8(of_floats)


def _fp8(of_floats: dict[str, Case]) -> Iterable[Case]:
    """Given scales, a projection and a context in float8_e4m3."""
    fp8 = KINDS[1]
    for name in _SCALED:
        case = of_floats[name]
        yield _with(case, f"fp8_{name}_static", 0.03, kind=fp8)
        yield _with(case, f"fp8_{name}_stored", 0.03, stored=True, kind=fp8)
        yield _with(case, f"fp8_{name}_stored_to_stored", 0.03, 0.0213, stored=True, kind=fp8)
    yield _with(of_floats["lengths"], "fp8_scale_each", (0.03, 0.025, 0.04), stored=True, kind=fp8)
    yield _with(of_floats["lengths"], "fp8_cut", 0.001, kind=fp8)
    for size in (32, 64):
        yield _with(_mixed(size), f"fp8_mixed_{size}", 0.01, 0.01, stored=True, kind=fp8)
    yield _with(of_floats["bert_base_packed"], "bert_base_packed_fp8", 0.03, 0.0213, stored=True, kind=fp8)


def _mixed(size: int) -> Case:
    """Packed sequences of many lengths, two heads."""

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        qkv = normal(generator, dtype, sum(_MIXED), 3 * 2 * size)
        return [qkv, None, None, None, *cumulative(_MIXED), None]

    return Case("mixed", make, {"num_heads": 2, "layout": "T (three N D)"})
