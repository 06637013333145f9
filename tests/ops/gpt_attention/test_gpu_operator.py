"""GptAttention as an operator on a GPU against the reference; without one, through Triton's interpreter."""

from dataclasses import replace

import pytest
import torch

from qontext.dtypes import from_torch, relative_rms

pytest.importorskip("triton")

from torch.nn.attention import SDPBackend

from qontext.ops.attention_common.problem import Rule
from qontext.ops.call import Device
from qontext.ops.device import device_of
from qontext.ops.gpt_attention import gpu, gpu_context, step
from qontext.ops.gpt_attention.op import OP
from qontext.ops.gpt_attention.rows import INPUTS
from qontext.plugins.conformance import call_for

ON_GPU = torch.cuda.is_available()
DEVICE = device_of("cuda") if ON_GPU else Device("cuda", frozenset({"sm_90"}), "interpreted", "cpu")
CASES = {case.name: case for case in OP.cases()}
# Reduced: all of them run on a device in tests/conformance.
CHOSEN = [
    "one_token_each_paged", "few_tokens_each", "neox_paged", "gptj_partial", "cyclic_sinks", "mixed_padded", "prompts",
    "prompts_paged", "prompts_in_parts", "prompts_in_parts_int8", "prefix", "rows_each", "rows_each_paged",
    "rows_each_cyclic", "int8_cache_steps", "int8_cache_by_head",
]  # fmt: skip
KERNEL = gpu.KERNELS[0]


def prepared(case, dtype):
    inputs = case.make(torch.Generator().manual_seed(0), dtype)
    inputs = [None if t is None else t.to(DEVICE.torch) for t in inputs]
    return inputs, call_for(OP, case, inputs, DEVICE)


def run(case, dtype):
    inputs, call = prepared(case, dtype)
    assert KERNEL.supports(call) is None
    want = OP.reference(*(None if t is None else t.cpu() for t in inputs), **call.attributes)
    got = KERNEL.bind(call)(inputs)
    for name, x, y in zip(("context", "cache"), got, want, strict=True):
        if x is not None:
            held = torch.float16 if x.element_size() == 1 else x.dtype
            assert relative_rms(x.cpu().float(), y.float()) < from_torch(held).tolerance, name


SLOW = ("prompts_paged", "prompts_in_parts_int8")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CHOSEN])
def test_equals_the_reference(name):
    run(CASES[name], [torch.float32, torch.float16][CHOSEN.index(name) % 2])


def test_rows_with_gaps():
    """The projection and its bias as views that skip every other number; the cache lies as it has to."""
    inputs, call = prepared(CASES["rows_each_paged"], torch.float32)
    want = OP.reference(*(None if t is None else t.cpu() for t in inputs), **call.attributes)
    for i in (INPUTS.index("qkv"), INPUTS.index("qkv_bias")):
        inputs[i] = torch.stack([inputs[i], inputs[i] + 1], -1)[..., 0]
    got = KERNEL.bind(call)(inputs)[0]
    assert relative_rms(got.cpu(), want[0]) < from_torch(torch.float32).tolerance


@pytest.mark.parametrize("name", ["rows_each", "rows_each_paged", "rows_each_cyclic"])
def test_shapes_alone_decide_where_rows_are_given(name, monkeypatch):
    """No count is read: the step works with operands whose numbers nothing on the host may ask for."""
    monkeypatch.setattr(gpu, "rows_of", lambda *given: pytest.fail("counts were read on the host"))
    monkeypatch.setattr(step, "rows_of", lambda *given: pytest.fail("counts were read on the host"))
    run(CASES[name], torch.float32)
    _, call = prepared(CASES[name], torch.float32)
    assert gpu.reads_counts(call) == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mixed", "context phase"),
        ("prefix", "context phase"),
        ("rope_dynamic", "context phase"),
    ],
)
def test_other_calls_say_why_they_read_counts(name, reason):
    _, call = prepared(CASES[name], torch.float32)
    assert reason in gpu.reads_counts(call)
    attributes = {**call.attributes, "tokens_each": 1, "mask_type": "causal", "rotary_scaling": "dynamic"}
    past = list(call.inputs)
    past[INPUTS.index("prefix_lengths")] = None
    assert "'dynamic'" in gpu.reads_counts(replace(call, attributes=attributes, inputs=tuple(past)))


def test_caches_of_bytes_go_with_any_float():
    _, call = prepared(CASES["float8_e4m3_cache"], torch.float16)
    assert KERNEL.supports(call) is None
    older = replace(call, device=Device("cuda", frozenset({"sm_80"}), "older", "cpu"))
    assert "sm_80 cannot convert" in KERNEL.supports(older)


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="torch sees no GPU")
@pytest.mark.parametrize("name", ["rows_each", "rows_each_paged", "rows_each_cyclic"])
def test_captured_steps_follow_their_counts(name):
    """A graph captured with some counts is replayed with others."""
    case = CASES[name]
    inputs, call = prepared(case, torch.float16)
    counts = [INPUTS.index(n) for n in ("past_lengths", "query_lengths")]
    wanted = [inputs[i].clone() for i in counts]
    for i in counts:
        inputs[i].fill_(1)
    bound = KERNEL.bind(call)
    held = inputs[1].clone()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        bound(inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        context, _ = bound(inputs)
    inputs[1].copy_(held)
    for i, numbers in zip(counts, wanted, strict=True):
        inputs[i].copy_(numbers)
    want = OP.reference(*(None if t is None else t.cpu() for t in inputs), **call.attributes)
    context.fill_(float("nan"))
    graph.replay()
    assert relative_rms(context.cpu(), want[0]) < from_torch(torch.float16).tolerance
    assert relative_rms(inputs[1].cpu(), want[1]) < from_torch(torch.float16).tolerance


@pytest.mark.parametrize("lengths", [(40, 40), (33, 40)])
def test_prompts_of_one_length_and_of_many_agree(lengths, monkeypatch):
    """The vendor's attention, all at once and one after the other, and ours give the same."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(sum(lengths), heads, 32, generator=generator).to(DEVICE.torch) for heads in (4, 2, 2)
    )
    bounds = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32, device=DEVICE.torch)
    prompts = gpu_context.Prompts(query, key, value, lengths, lengths, (bounds, bounds))
    rule, ours = Rule(0.2, "causal"), gpu.GpuStep(prepared(CASES["prompts"], torch.float32)[1])._attend
    want = gpu_context.attend(prompts, rule, ours)
    monkeypatch.setattr(gpu_context, "_suits_vendors", lambda prompts, rule: True)
    monkeypatch.setattr(gpu_context, "_LONG", 32)
    monkeypatch.setattr(gpu_context, "_VENDORS", [SDPBackend.MATH])  # that of float32
    got = gpu_context.attend(prompts, rule, lambda *given: pytest.fail("not the vendor's"))
    assert relative_rms(got, want) < from_torch(torch.float32).tolerance
