"""New tokens put in place on a GPU; without one, through Triton's interpreter."""

import pytest
import torch

from qontext.dtypes import from_torch, relative_rms

pytest.importorskip("triton")

from qontext.ops.gpt_attention.gpu_store import Angles, Tokens, store

PLACE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if PLACE.type == "cuda" else [])
COUNT, HEADS, KV_HEADS = 7, 6, 2


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + len(shape)))


def turned(x, cos, sin, half):
    """x `[T, N, D]` in float64, the first elements of each head turned by `[T, pairs]`."""
    pairs = cos.shape[-1]
    c, s = cos.double()[:, None], sin.double()[:, None]
    y = x.double().clone()
    if half:
        a, b = y[..., :pairs].clone(), y[..., pairs : 2 * pairs].clone()
        y[..., :pairs], y[..., pairs : 2 * pairs] = a * c - b * s, b * c + a * s
    else:
        a, b = y[..., 0 : 2 * pairs : 2].clone(), y[..., 1 : 2 * pairs : 2].clone()
        y[..., 0 : 2 * pairs : 2], y[..., 1 : 2 * pairs : 2] = a * c - b * s, b * c + a * s
    return y


def split(qkv, size):
    heads = qkv.unflatten(-1, (HEADS + 2 * KV_HEADS, size))
    return heads.split([HEADS, KV_HEADS, KV_HEADS], 1)


def run(qkv, size, cache=None, sinks=0, bias=None, angles=None, positions=None, slots=None, **more):
    """The queries, NaN where none was written."""
    query = torch.full((len(qkv), HEADS, size), float("nan"), dtype=qkv.dtype, device=PLACE)
    kinds = {k: more.pop(k) for k in ("kept", "table") if k in more}
    numbers = [None if t is None else torch.as_tensor(t, dtype=torch.int32, device=PLACE) for t in (positions, slots)]
    tables = {k: torch.as_tensor(t, dtype=torch.int32, device=PLACE) for k, t in kinds.items()}
    if angles is not None:
        angles = Angles(angles.cos.to(PLACE), angles.sin.to(PLACE), angles.half, angles.by_token)
    store(
        qkv.to(PLACE), query, Tokens(*numbers, **tables), KV_HEADS, None if bias is None else bias.to(PLACE), angles,
        cache, sinks=sinks, **more,
    )  # fmt: skip
    return query.cpu()


def close(got, want, dtype):
    assert relative_rms(got, want) < from_torch(dtype).tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "pairs"), [(64, 32), (24, 12), (100, 16)])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("by_token", [True, False])
def test_queries_and_keys_are_turned_and_everything_lands(dtype, size, pairs, half, by_token):
    qkv = random(COUNT, (HEADS + 2 * KV_HEADS) * size).to(dtype)
    bias = random((HEADS + 2 * KV_HEADS) * size, seed=5).to(dtype)
    positions, slots = [4, 5, 0, 9, 1, 2, 3], [0, 0, 2, 1, 2, 2, 2]
    table = random(12, pairs, seed=3)
    cos, sin = table.cos(), table.sin()
    chosen = (cos[:COUNT], sin[:COUNT]) if by_token else (cos[positions], sin[positions])
    cache = torch.full((3, 2, KV_HEADS, 12, size), float("nan"), dtype=dtype, device=PLACE)
    got = run(qkv, size, cache, 0, bias, Angles(cos, sin, half, by_token), positions, slots)
    q, k, v = split(qkv.double() + bias.double(), size)
    close(got, turned(q, *chosen, half), dtype)
    held = cache.cpu()
    close(held[slots, 0, :, positions], turned(k, *chosen, half), dtype)
    close(held[slots, 1, :, positions], v, dtype)
    untouched = torch.ones(3, 12, dtype=torch.bool)
    untouched[slots, positions] = False
    assert held.movedim(3, 1)[untouched].isnan().all()


def test_pages_and_no_rotation():
    qkv = random(COUNT, (HEADS + 2 * KV_HEADS) * 32)
    cache = torch.full((9, 2, KV_HEADS, 4, 32), float("nan"), device=PLACE)
    table = torch.tensor([[3, 7, 0], [8, 1, 2]])
    positions, slots = torch.tensor([0, 3, 4, 11, 2, 5, 9]), torch.tensor([0, 0, 0, 0, 1, 1, 1])
    got = run(qkv, 32, cache, positions=positions, slots=slots, table=table)
    q, k, v = split(qkv, 32)
    assert torch.equal(got, q)
    pages = table[slots, positions // 4]
    assert torch.equal(cache.cpu()[pages, 0, :, positions % 4], k)
    assert torch.equal(cache.cpu()[pages, 1, :, positions % 4], v)


def test_queries_alone():
    qkv = random(3, (HEADS + 2 * KV_HEADS) * 16)
    assert torch.equal(run(qkv, 16, positions=[0, 1, 2]), split(qkv, 16)[0])


# Triton's interpreter loses the carry where rounding to fp8 reaches the next power of two.
@pytest.mark.parametrize("kind", [torch.int8] + ([torch.float8_e4m3fn] if PLACE.type == "cuda" else []))
@pytest.mark.parametrize("per_head", [False, True])
def test_quantised_caches_hold_rounded_and_saturated_numbers(kind, per_head):
    qkv = random(COUNT, (HEADS + 2 * KV_HEADS) * 32) * 3
    qkv[0, -5:] = torch.tensor([1e6, -1e6, 0.5 / 20, 1.5 / 20, 2.5 / 20])
    scales = [torch.tensor([20.0, 31.0] if per_head else [20.0]), torch.tensor([20.0, 20.0] if per_head else [20.0])]
    cache = torch.zeros(1, 2, KV_HEADS, COUNT, 32, dtype=kind, device=PLACE)
    run(
        qkv, 32, cache, positions=range(COUNT), slots=[0] * COUNT, key_scale=scales[0].to(PLACE),
        value_scale=scales[1].to(PLACE),
    )  # fmt: skip
    for part, (x, scale) in enumerate(zip(split(qkv, 32)[1:], scales, strict=True)):
        scaled = x * scale[:, None]
        if kind == torch.int8:
            want = scaled.round().clamp(-128, 127).to(kind)
        else:
            want = scaled.clamp(-448, 448).to(kind)
        assert torch.equal(cache[0, part].cpu().transpose(0, 1).float(), want.float())


def test_cyclic_caches_keep_their_sinks_and_the_last_tokens():
    """One sequence of 30 tokens into 12 places, of which 2 are sinks."""
    qkv = random(30, (HEADS + 2 * KV_HEADS) * 16)
    position = torch.arange(30)
    kept = (position < 2) | (position >= 30 - 10)
    cache = torch.full((1, 2, KV_HEADS, 12, 16), float("nan"), device=PLACE)
    run(qkv, 16, cache, sinks=2, positions=position, slots=[0] * 30, kept=kept.int(), cyclic=True)
    _, k, v = split(qkv, 16)
    held = [0, 1, *(next(t for t in range(20, 30) if 2 + (t - 2) % 10 == place) for place in range(2, 12))]
    assert torch.equal(cache[0, 0].cpu().transpose(0, 1), k[held])
    assert torch.equal(cache[0, 1].cpu().transpose(0, 1), v[held])
