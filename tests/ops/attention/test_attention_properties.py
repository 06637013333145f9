"""Any shape, layout and mask: every kernel agrees with attention written out for one query at a time."""

import math

import torch
from attention_helpers import assert_close, cu_seqlens, from_plain, to_batch_first
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qontext.ops.attention_common.layouts import QKV_LAYOUTS, is_packed
from qontext.ops.declare import call_of
from qontext.ops.device import device_of
from qontext.ops.qkv_to_context.op import OP

Tensor = torch.Tensor


def one_by_one(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, added: Tensor, empty_row: str) -> Tensor:
    """Attention `[S, N, D]` of one sequence, a query and a head at a time, in float64."""
    q, k, v, added = q.double(), k.double(), v.double(), added.double()
    out = torch.zeros(q.shape, dtype=torch.float64)
    for i in range(q.shape[0]):
        for n in range(q.shape[1]):
            logits = k[:, n] @ q[i, n] / math.sqrt(q.shape[2]) + added[n, i]
            keys = allowed[n, i]
            if bool(keys.any()):
                out[i, n] = torch.softmax(logits[keys], 0) @ v[keys, n]
            elif empty_row == "uniform":
                out[i, n] = v[:, n].mean(0)
            elif empty_row == "as_unmasked":
                out[i, n] = torch.softmax(logits, 0) @ v[:, n]
    return out


@st.composite
def problems(draw):
    layout = draw(st.sampled_from(QKV_LAYOUTS))
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    heads, size = draw(st.integers(1, 3)), draw(st.sampled_from([8, 16, 24, 52]))
    mask = draw(
        st.sampled_from(
            [None, (batch, length), (batch, heads, length, length), (1, 1, length, length), (batch, 1, 1, length)]
        )
    )
    return {
        "layout": layout,
        "sizes": (batch, length, heads, size),
        "lengths": draw(st.none() | st.lists(st.integers(0, length), min_size=batch, max_size=batch)),
        "mask": mask,
        "bias": draw(st.sampled_from([None, (1, heads, length, length), (batch, heads, length, length)])),
        "kind": draw(st.sampled_from(["full", "causal", "prefix"])),
        "window_left": draw(st.sampled_from([-1, -1, 0, 3])),
        "empty_row": draw(st.sampled_from(["zeros", "uniform", "as_unmasked"])),
        "seed": draw(st.integers(0, 1000)),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_every_kernel_agrees_with_one_query_at_a_time(problem):
    batch, length, heads, size = problem["sizes"]
    layout, packed = problem["layout"], is_packed(problem["layout"])
    generator = torch.Generator().manual_seed(problem["seed"])
    plain = torch.randn(batch, length, 3 * heads * size, generator=generator)
    lengths = problem["lengths"] or [length] * batch
    mask = None if problem["mask"] is None else torch.rand(problem["mask"], generator=generator) < 0.6
    bias = None if problem["bias"] is None else torch.randn(problem["bias"], generator=generator)
    prefix = torch.randint(0, length + 1, (batch,), generator=generator) if problem["kind"] == "prefix" else None

    places = torch.arange(length)
    allowed = torch.ones(batch, heads, length, length, dtype=torch.bool)
    allowed &= (places < torch.tensor(lengths)[:, None])[:, None, None]
    if mask is not None:
        allowed &= mask if mask.dim() == 4 else mask[:, None, None]
    if problem["kind"] != "full":
        causal = places[None, :] <= places[:, None]
        seen = causal if prefix is None else causal | (places[None, :] < prefix[:, None, None])
        allowed &= seen if prefix is None else seen[:, None]
    if problem["window_left"] >= 0:
        allowed &= places[:, None] - places[None, :] <= problem["window_left"]
    added = torch.zeros(batch, heads, length, length) + (0 if bias is None else bias)

    want = []
    for b in range(batch):
        q, k, v = plain[b].view(length, 3, heads, size).unbind(1)
        rows = lengths[b] if packed else length  # in a packed call padding does not exist
        part = (slice(None), slice(rows), slice(rows))
        context = one_by_one(q[:rows], k[:rows], v[:rows], allowed[b][part], added[b][part], problem["empty_row"])
        want.append(context.flatten(1))
    expected = torch.cat(want) if packed else torch.stack(want)

    valid = places < torch.tensor(lengths)[:, None]
    inputs = [
        from_plain(plain, layout.replace("T", "B S"), heads)[valid] if packed else from_plain(plain, layout, heads),
        torch.tensor(lengths, dtype=torch.int32) if problem["lengths"] and not packed else None,
        mask,
        bias,
        cu_seqlens(lengths) if packed else None,
        torch.tensor(max(lengths), dtype=torch.int32) if packed else None,
        prefix,
    ]
    names = ("layout", "kind", "window_left", "empty_row")
    attributes = {"num_heads": heads, **{name: problem[name] for name in names}}
    call = call_of(OP, inputs, attributes, (True, False, False), device_of("cpu"))
    ran = 0
    for kernel in OP.kernels:
        if kernel.supports(call) is not None:
            continue
        operand = call.outputs[0]
        out = [torch.full(operand.shape, math.nan), None, None] if kernel.writes_out else None
        context = kernel.bind(call)(inputs, out)[0]
        assert_close(context if packed else to_batch_first(context, layout), expected)
        ran += 1
    assert ran >= 2
    assert_close(
        to_batch_first(OP.reference(*inputs, **call.attributes)[0], layout)
        if not packed
        else OP.reference(*inputs, **call.attributes)[0],
        expected,
    )
