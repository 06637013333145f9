"""The Hopper kernels of teams on a GPU, the one for a single tile of keys included: every kind of length, both orders,
neighbours, guard bands, more keys than the ring holds. Gluon is not interpreted, so nothing here runs without such a
GPU."""

import pytest
import torch

from qontext.dtypes import from_torch, relative_rms
from qontext.ops.attention_common import gpu_hopper
from qontext.ops.catalogue import BY_NAME
from qontext.ops.declare import call_of
from qontext.ops.device import device_of
from qontext.plugins.conformance import kernels_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs a Hopper GPU"
    ),
]

QKV, ATTENTION = BY_NAME["QKVToContext"], BY_NAME["Attention"]
GUARD = 4  # rows before and after the context
LENGTHS = [100, 1, 0, 64, 65, 128, 383, 384, 17, 16, 33, 200]
SHORT = [100, 1, 0, 64, 65, 128, 127, 63, 17, 16, 33, 2]  # a single tile of keys each
LONG = [5, 700, 63, 0, 1500, 2]  # more tiles of keys than the ring holds


@pytest.fixture(autouse=True)
def by_teams(monkeypatch):
    """As if heads were many."""
    monkeypatch.setattr(gpu_hopper, "plan_for", lambda *sizes: None)


def bound_of(op, inputs, attributes, wanted):
    call = call_of(op, inputs, attributes, wanted, device_of("cuda"))
    kernel = next(k for k in kernels_of(op, "cuda") if k.name == "hopper.attention")
    assert kernel.supports(call) is None
    return kernel.bind(call)


def packed(lengths, heads, size, dtype, layout):
    """(the projection, a function from a projection to its context)."""
    generator = torch.Generator("cuda").manual_seed(sum(lengths) + size)
    qkv = torch.randn(sum(lengths), 3 * heads * size, generator=generator, device="cuda").to(dtype)
    cu = torch.tensor([0, *lengths]).cumsum(0).to(device="cuda", dtype=torch.int32)
    attributes = {"num_heads": heads, "layout": layout}
    longest = torch.tensor(max(lengths), dtype=torch.int32)

    def run(x):
        inputs = [x, None, None, None, cu, longest, None]
        out = torch.full((x.shape[0] + 2 * GUARD, heads * size), 7.25, dtype=dtype, device="cuda")
        inner = out[GUARD:-GUARD]
        inner.fill_(torch.nan)
        bound_of(QKV, inputs, attributes, (True, False, False))(inputs, [inner, None, None])
        assert (out[:GUARD] == 7.25).all() and (out[-GUARD:] == 7.25).all(), "rows around the context were written"
        return inner

    return qkv, run


def wanted(qkv, lengths, heads, size, layout):
    axis = 1 if layout == "T (three N D)" else 2
    shape = (3, heads, size) if axis == 1 else (heads, 3, size)
    parts = qkv.double().unflatten(-1, shape).unbind(axis)
    done = []
    for one in zip(*(x.split(lengths) for x in parts), strict=True):
        q, k, v = (x.transpose(0, 1) for x in one)
        done.append((torch.softmax(q @ k.transpose(1, 2) * size**-0.5, -1) @ v).transpose(0, 1).flatten(1))
    return torch.cat(done)


@pytest.mark.parametrize("layout", ["T (three N D)", "T (N three D)"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("lengths", [LENGTHS, SHORT, LONG, [129]], ids=["mixed", "short", "long", "one"])
def test_packed_sequences_of_every_length(lengths, size, dtype, layout):
    heads = 3
    qkv, run = packed(lengths, heads, size, dtype, layout)
    got = run(qkv)
    assert relative_rms(got, wanted(qkv, lengths, heads, size, layout)) <= from_torch(dtype).tolerance
    assert torch.equal(run(qkv), got), "two runs differ"


@pytest.mark.parametrize("longest", [128, 329])
def test_more_units_than_programs(longest):
    lengths = torch.randint(0, longest + 1, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    qkv, run = packed(lengths, 12, 64, torch.bfloat16, "T (three N D)")
    tolerance = from_torch(torch.bfloat16).tolerance
    assert relative_rms(run(qkv), wanted(qkv, lengths, 12, 64, "T (three N D)")) <= tolerance


@pytest.mark.parametrize("lengths", [LENGTHS, SHORT], ids=["mixed", "short"])
@pytest.mark.parametrize("spoiled", [0, 5, 6, 11])
def test_a_sequence_of_nan_changes_no_bit_of_its_neighbours(spoiled, lengths):
    qkv, run = packed(lengths, 2, 64, torch.float16, "T (N three D)")
    clean = run(qkv)
    start = sum(lengths[:spoiled])
    inside = torch.zeros(qkv.shape[0], dtype=torch.bool, device="cuda")
    inside[start : start + lengths[spoiled]] = True
    qkv[inside] = torch.nan
    got = run(qkv)
    assert got[inside].isnan().all()
    assert torch.equal(got[~inside], clean[~inside])


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(("queries", "counts"), [(150, [210, 0, 65, 129]), (75, [120, 0, 65, 1])])
def test_padded_sequences_with_counts_and_shared_key_heads(queries, counts, size):
    """Values behind the counted ones are NaN; a sequence without any gives zeros."""
    batch, keys, heads, shared = 4, max(counts), 4, 2
    generator = torch.Generator("cuda").manual_seed(size)
    q = torch.randn(batch, queries, heads, size, generator=generator, device="cuda").half()
    k, v = (torch.randn(batch, keys, shared, size, generator=generator, device="cuda").half() for _ in range(2))
    for b, n in enumerate(counts):
        k[b, n:] = torch.nan
        v[b, n:] = torch.nan
    lengths = torch.tensor(counts, dtype=torch.int32, device="cuda")
    inputs = [q.flatten(2), k.flatten(2), v.flatten(2), None, None, None, None, lengths, None, None, None, None, None]
    attributes = {"layout": "B S (N D)", "num_heads": heads, "num_kv_heads": shared}
    out = torch.full((batch, queries, heads * size), torch.nan, dtype=torch.float16, device="cuda")
    bound_of(ATTENTION, inputs, attributes, (True, False, False, False))(inputs, [out, None, None, None])
    for b, n in enumerate(counts):
        one = q[b].double().transpose(0, 1)
        k1, v1 = (x[b, :n].double().repeat_interleave(heads // shared, 1).transpose(0, 1) for x in (k, v))
        want = torch.softmax(one @ k1.transpose(1, 2) * size**-0.5, -1) @ v1
        got = out[b].unflatten(-1, (heads, size)).transpose(0, 1)
        if n == 0:
            assert (got == 0).all()
        else:
            assert relative_rms(got, want) <= from_torch(torch.float16).tolerance


def test_packed_queries_and_keys_of_different_lengths():
    queries, keys, heads, size = [70, 1, 200, 30], [5, 300, 64, 0], 3, 64
    generator = torch.Generator("cuda").manual_seed(3)
    q = torch.randn(sum(queries), heads * size, generator=generator, device="cuda").half()
    k, v = (torch.randn(sum(keys), heads * size, generator=generator, device="cuda").half() for _ in range(2))
    bounds = [torch.tensor([0, *x]).cumsum(0).to(device="cuda", dtype=torch.int32) for x in (queries, keys)]
    most = [torch.tensor(max(x), dtype=torch.int32) for x in (queries, keys)]
    inputs = [q, k, v, None, None, None, None, None, *bounds, *most, None]
    attributes = {"layout": "T (N D)", "num_heads": heads}
    out = torch.full_like(q, torch.nan)
    bound_of(ATTENTION, inputs, attributes, (True, False, False, False))(inputs, [out, None, None, None])
    wide = [x.double().cpu() if x is not None and x.is_floating_point() else x for x in inputs]
    wide = [x.cpu() if isinstance(x, torch.Tensor) else x for x in wide]
    want = ATTENTION.reference(*wide, **ATTENTION.complete_attributes(attributes))[0]
    assert relative_rms(out, want) <= from_torch(torch.float16).tolerance
