"""The streaming kernel over many small tiles, so that every kind of tile comes up: whole, cut off, hidden, empty."""

import pytest
import torch

from qontext.dtypes import by_name, relative_rms
from qontext.ops.catalogue import BY_NAME
from qontext.ops.declare import call_of
from qontext.ops.device import device_of
from qontext.plugins.conformance import kernels_of

pytest.importorskip("triton")

from qontext.ops.attention_common import gpu
from qontext.ops.attention_common.gpu_choice import Tile

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ATTENTION = BY_NAME["Attention"]
QUERIES, KEYS = (33, 50, 1, 20), (50, 49, 17, 3)


def run_packed(queries, keys, peel, monkeypatch, neighbours=None, **attributes):
    """(result, float64 reference) of packed cross attention in tiles of 16; `neighbours` spoils other sequences."""
    monkeypatch.setattr(gpu, "plain_tile", lambda *numbers: Tile(16, 16, 4, 1, peel))
    generator = torch.Generator().manual_seed(len(attributes))
    heads, size = 2, 16
    q = torch.randn(sum(queries), heads * size, generator=generator).half()
    k, v = (torch.randn(sum(keys), heads * size, generator=generator).half() for _ in range(2))
    cu_q, cu_kv = (torch.tensor([0, *lengths]).cumsum(0).to(torch.int32) for lengths in (queries, keys))
    prefix = torch.tensor([0, 20, 3, 3]) if attributes.get("kind") == "prefix" else None
    most = [torch.tensor(max(lengths), dtype=torch.int32) for lengths in (queries, keys)]
    inputs = [q, k, v, None, None, None, None, None, cu_q, cu_kv, *most, prefix]
    attributes = {"layout": "T (N D)", "num_heads": heads, **attributes}
    wide = [t.double() if t is not None and t.is_floating_point() else t for t in inputs]
    complete = ATTENTION.complete_attributes(attributes)
    want = ATTENTION.reference(*wide, **complete)[0]
    if neighbours is not None:
        for x in (k, v):
            x[: keys[0]] = neighbours
    call = call_of(ATTENTION, inputs, attributes, (True, False, False, False), device_of(DEVICE))
    kernel = next(k for k in kernels_of(ATTENTION, "cuda") if k.name == "triton.attention")
    out = torch.full_like(q, torch.nan).to(DEVICE)
    placed = [t if t is None or param.host else t.to(DEVICE) for param, t in zip(ATTENTION.inputs, inputs, strict=True)]
    kernel.bind(call)(placed, [out, None, None, None])
    return out.cpu(), want


@pytest.mark.parametrize("peel", [True, False])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"kind": "causal"},
        {"kind": "prefix"},
        {"window_left": 5, "window_right": 18},
        {"window_left": 20, "kind": "causal"},
        {"window_left": 17, "window_right": 0, "kind": "prefix"},
    ],
    ids=lambda a: "_".join(map(str, a.values())) or "full",
)
def test_every_kind_over_many_tiles(attributes, peel, monkeypatch):
    got, want = run_packed(QUERIES, KEYS, peel, monkeypatch, **attributes)
    assert relative_rms(got, want) <= by_name("float16").tolerance


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, in the interpreter, remarks on the NaN
def test_nothing_leaks_from_one_sequence_into_another(monkeypatch):
    """NaN in the keys and values of the first sequence stays there."""
    got, want = run_packed(QUERIES, KEYS, True, monkeypatch, neighbours=torch.nan)
    assert torch.isnan(got[: QUERIES[0]]).all()
    assert relative_rms(got[QUERIES[0] :], want[QUERIES[0] :]) <= by_name("float16").tolerance


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("name", ["hopper.attention", "triton.attention", "triton.masked_attention"])
def test_a_graph_serves_other_lengths_than_it_was_captured_with(name):
    """No kernel reads a length on the host: the graph computes what the boundaries say when it is replayed."""
    op = BY_NAME["QKVToContext"]
    heads, size, tokens = 2, 64, 300
    generator = torch.Generator("cuda").manual_seed(0)
    qkv = torch.randn(tokens, 3 * heads * size, generator=generator, device="cuda").half()
    cu = torch.tensor([0, 100, 200, tokens], dtype=torch.int32, device="cuda")
    inputs = [qkv, None, None, None, cu, torch.tensor(120, dtype=torch.int32), None]
    attributes = {"num_heads": heads, "layout": "T (three N D)"}
    if name == "triton.masked_attention":
        attributes["softcap"] = 30.0
    call = call_of(op, inputs, attributes, (True, False, False), device_of("cuda"))
    kernel = next(k for k in kernels_of(op, "cuda") if k.name == name)
    if kernel.supports(call) is not None:
        pytest.skip(kernel.supports(call))
    bound = kernel.bind(call)
    out = torch.empty(tokens, heads * size, dtype=torch.float16, device="cuda")
    bound(inputs, [out, None, None])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        bound(inputs, [out, None, None])
    cu.copy_(torch.tensor([0, 17, 137, 250], dtype=torch.int32))
    out.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    used = [t.cpu() if isinstance(t, torch.Tensor) else t for t in inputs]
    used[0] = used[0][:250].double()
    want = op.reference(*used, **op.complete_attributes(attributes))[0]
    assert relative_rms(out[:250], want) <= by_name("float16").tolerance
    assert out[250:].isnan().all()
