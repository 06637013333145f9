"""Attention against the ONNX node tests, torch's own attention, and what its attributes say."""

import functools
import math
import warnings

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from attention_helpers import assert_close, cu_seqlens, randn

from qontext.dtypes import from_torch, relative_rms
from qontext.ops.attention.op import OP as attention

SCORES_MODES = ("scaled", "capped", "masked", "probs")


@functools.cache
def node_tests() -> dict[str, object]:
    """The ONNX backend's node tests of Attention by name, without their expanded twins. Takes some seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        state = np.random.get_state()
        np.random.seed(0)
        found = collect_testcases(None)
        np.random.set_state(state)
    return {c.name: c for c in found if [n.op_type for n in c.model.graph.node] == ["Attention"]}


def to_torch(array: np.ndarray | onnx.TensorProto) -> torch.Tensor:
    array = onnx.numpy_helper.to_array(array) if isinstance(array, onnx.TensorProto) else np.asarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def as_our_mask(mask: torch.Tensor | None, keys: int) -> torch.Tensor | None:
    """ONNX's mask of up to four axes, whose last axis may be short, as `[B|1, N|1, S|1, Skv]`."""
    if mask is None:
        return None
    mask = mask[(None,) * (4 - mask.dim())]
    missing = keys - mask.shape[-1]
    fill = 0 if mask.dtype == torch.bool else -math.inf
    return mask if mask.shape[-1] == 1 and missing == 0 else F.pad(mask, (0, missing), value=fill)


def run_node(case) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name, ours, expected) of every output of a node test."""
    node = case.model.graph.node[0]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    arrays, expected = case.data_sets[0]
    given = dict(zip([n for n in node.input if n], map(to_torch, arrays), strict=True))
    names = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
    x = {ours: given.get(theirs) for ours, theirs in zip(names, [*node.input, *[""] * 7], strict=False)}
    keys = x["K"].shape[-2] + (x["past_key"].shape[2] if x["past_key"] is not None else 0)
    outputs = [("context", "present_key", "present_value", "scores")[i] for i, n in enumerate(node.output) if n]
    results = attention(
        x["Q"],
        x["K"],
        x["V"],
        as_our_mask(x["attn_mask"], keys),
        past_key=x["past_key"],
        past_value=x["past_value"],
        key_lengths=x["nonpad_kv_seqlen"],
        outputs=outputs,
        layout="B N S D" if x["Q"].dim() == 4 else "B S (N D)",
        num_heads=attributes.get("q_num_heads", 0),
        num_kv_heads=attributes.get("kv_num_heads", 0),
        scale=attributes.get("scale", 0.0),
        softcap=attributes.get("softcap", 0.0),
        kind="causal" if attributes.get("is_causal") else "full",
        window_left=attributes.get("left_window_size", -1),
        window_right=attributes.get("right_window_size", -1),
        scores_mode=SCORES_MODES[attributes.get("qk_matmul_output_mode", 0)],
    )
    results = results if isinstance(results, tuple) else (results,)
    return list(zip(outputs, results, map(to_torch, expected), strict=True))


def test_onnx_node_tests():
    failures = []
    tests = node_tests()
    assert len(tests) >= 90
    for name, case in tests.items():
        for output, ours, want in run_node(case):
            # The expected numbers of half cases are computed in halves themselves.
            limit = 2 * from_torch(want.dtype).tolerance
            if ours.dtype != want.dtype or relative_rms(ours, want) > limit:
                failures.append(f"{name}: {output} {relative_rms(ours, want):.1e}")
    assert failures == []


@pytest.mark.parametrize("layout", ["B S (N D)", "B N S D", "B S N D", "S B (N D)"])
def test_layouts_agree_with_torch(layout):
    q, k, v = randn(0, 2, 4, 5, 16), randn(1, 2, 2, 9, 16), randn(2, 2, 2, 9, 24)
    want = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    def laid_out(x: torch.Tensor) -> torch.Tensor:
        x = x if layout == "B N S D" else x.transpose(1, 2)
        x = x.transpose(0, 1) if layout.startswith("S B") else x
        return (x.flatten(-2) if "(" in layout else x).contiguous()

    heads = {"num_heads": 4, "num_kv_heads": 2} if "(" in layout else {}
    assert_close(attention(laid_out(q), laid_out(k), laid_out(v), layout=layout, **heads), laid_out(want))


@pytest.mark.parametrize("queries", [1, 7])
def test_cross_attention_over_1500_keys(queries):
    q, k, v = randn(0, 1, 2, queries, 64), randn(1, 1, 2, 1500, 64), randn(2, 1, 2, 1500, 64)
    want = F.scaled_dot_product_attention(q, k, v)
    assert_close(attention(q, k, v, layout="B N S D"), want)
    lengths = torch.tensor([1200])
    masked = F.scaled_dot_product_attention(q, k[:, :, :1200], v[:, :, :1200])
    assert_close(attention(q, k, v, key_lengths=lengths, layout="B N S D"), masked)


def test_a_step_with_past_equals_the_last_row_without():
    q, k, v = randn(0, 2, 4, 9, 16), randn(1, 2, 2, 9, 16), randn(2, 2, 2, 9, 16)
    whole = attention(q, k, v, layout="B N S D", kind="causal")
    step, present_key, present_value = attention(
        q[:, :, 6:],
        k[:, :, 6:],
        v[:, :, 6:],
        past_key=k[:, :, :6],
        past_value=v[:, :, :6],
        layout="B N S D",
        kind="causal",
        outputs=("context", "present_key", "present_value"),
    )
    assert_close(step, whole[:, :, 6:])
    assert torch.equal(present_key, k)
    assert torch.equal(present_value, v)


def test_packed_cross_attention_equals_one_sequence_at_a_time():
    queries, keys = [3, 0, 5], [7, 2, 4]
    q, k, v = randn(0, 8, 4 * 8), randn(1, 13, 4 * 8), randn(2, 13, 4 * 8)
    packed = {
        "cu_seqlens_q": cu_seqlens(queries),
        "cu_seqlens_kv": cu_seqlens(keys),
        "max_seqlen_q": torch.tensor(5, dtype=torch.int32),
        "max_seqlen_kv": torch.tensor(7, dtype=torch.int32),
    }
    for kind in ("full", "causal"):
        got = attention(q, k, v, num_heads=4, layout="T (N D)", kind=kind, **packed)
        one_by_one = []
        for a, b in zip(q.split(queries), zip(k.split(keys), v.split(keys), strict=True), strict=True):
            # The last query sees the last key: lengths that are valid throughout say the same.
            valid = torch.tensor([b[0].shape[0]])
            one = attention(a[None], b[0][None], b[1][None], num_heads=4, key_lengths=valid, kind=kind)
            one_by_one.append(one[0])
        assert_close(got, torch.cat(one_by_one))


def test_scores_at_each_stage():
    q, k, v = randn(0, 1, 2, 3, 8), randn(1, 1, 2, 4, 8), randn(2, 1, 2, 4, 8)
    mask = torch.zeros(1, 1, 3, 4)
    mask[..., 3] = -math.inf
    scaled = q @ k.transpose(-1, -2) / math.sqrt(8)
    capped = torch.tanh(scaled / 1.5) * 1.5
    want = {"scaled": scaled, "capped": capped, "masked": capped + mask, "probs": torch.softmax(capped + mask, -1)}
    for mode, expected in want.items():
        context, scores = attention(
            q, k, v, mask, layout="B N S D", softcap=1.5, scores_mode=mode, outputs=("context", "scores")
        )
        assert_close(scores, expected)
        assert_close(context, want["probs"] @ v)
