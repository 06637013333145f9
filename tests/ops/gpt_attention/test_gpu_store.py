"""New tokens put in place on a GPU; without one, through Triton's interpreter."""

import pytest
import torch

from qontext.dtypes import from_torch, relative_rms

pytest.importorskip("triton")

from qontext.ops.gpt_attention.gpu_places import TURNS, Angles, Places, turns
from qontext.ops.gpt_attention.gpu_store import store
from qontext.ops.gpt_attention.rotary import Rotary

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


def run(qkv, size, cache=None, queries=(COUNT,), past=(0,), slots=None, each=0, table=None, **more):
    """The queries, NaN where none was written."""
    query = torch.full((len(qkv), HEADS, size), float("nan"), dtype=qkv.dtype, device=PLACE)
    first = torch.tensor([0, *queries]).cumsum(0)[:-1]
    numbers = (None if x is None else torch.as_tensor(x, dtype=torch.int32, device=PLACE) for x in
               (None if each else first, queries, past, slots, table))  # fmt: skip
    moved = {k: x.to(PLACE) if isinstance(x, torch.Tensor) else x for k, x in more.items()}
    store(qkv.to(PLACE), query, Places(len(queries), each, *numbers), KV_HEADS, cache=cache, **moved)
    return query.cpu()


def close(got, want, dtype):
    assert relative_rms(got, want) < from_torch(dtype).tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "pairs"), [(64, 32), (24, 12), (100, 16)])
@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("by_token", [True, False])
def test_queries_and_keys_are_turned_and_everything_lands(dtype, size, pairs, half, by_token):
    """Four sequences, one of which brings nothing."""
    qkv = random(COUNT, (HEADS + 2 * KV_HEADS) * size).to(dtype)
    bias = random((HEADS + 2 * KV_HEADS) * size, seed=5).to(dtype)
    positions, slots = [4, 5, 9, 0, 1, 2, 3], [0, 0, 1, 2, 2, 2, 2]
    if by_token:
        table = random(COUNT, pairs, seed=3)
        angles, chosen = Angles(table.cos().to(PLACE), table.sin().to(PLACE), half, True), (table.cos(), table.sin())
    else:
        rotary = Rotary(2 * pairs, "half" if half else "interleaved", 500.0, "yarn", 4.0, 8, 1.0, 32.0)
        angles, chosen = turns(rotary, PLACE), rotary.angles(torch.tensor(positions), 0)
    cache = torch.full((3, 2, KV_HEADS, 12, size), float("nan"), dtype=dtype, device=PLACE)
    got = run(qkv, size, cache, (2, 0, 1, 4), (4, 3, 9, 0), (0, 1, 1, 2), bias=bias, angles=angles)
    q, k, v = split(qkv.double() + bias.double(), size)
    close(got, turned(q, *chosen, half), dtype)
    held = cache.cpu()
    close(held[slots, 0, :, positions], turned(k, *chosen, half), dtype)
    close(held[slots, 1, :, positions], v, dtype)
    untouched = torch.ones(3, 12, dtype=torch.bool)
    untouched[slots, positions] = False
    assert held.movedim(3, 1)[untouched].isnan().all()


def test_angles_of_far_positions():
    """Two tables give what float64 gives, to float32's accuracy, up to the last position."""
    rotary = Rotary(8, "half")
    position = TURNS * TURNS - 1
    qkv = random(1, (HEADS + 2 * KV_HEADS) * 8)
    got = run(qkv, 8, queries=(1,), past=(position,), angles=turns(rotary, PLACE))
    want = turned(split(qkv, 8)[0], *rotary.angles(torch.tensor([position]), 0), True)
    assert relative_rms(got, want) < 1e-6


@pytest.mark.parametrize("each", [0, 3])
def test_pages_and_no_rotation(each):
    """Packed, and with rows of padding; a page that the cache has not and a place behind its end are left alone."""
    qkv = random(9, (HEADS + 2 * KV_HEADS) * 32)
    cache = torch.full((9, 2, KV_HEADS, 4, 32), float("nan"), device=PLACE)
    table = torch.tensor([[3, 7, 0], [8, 1, 2], [99, -1, 5]])
    queries, past = (3, 1, 3), (3, 10, 7)
    got = run(qkv, 32, cache, queries, past, each=each, table=table)
    rows = [0, 1, 2, 3, 6, 7, 8] if each else list(range(7))
    q, k, v = split(qkv, 32)
    assert torch.equal(got[rows], q[rows])
    slots, positions = torch.tensor([0, 0, 0, 1, 2, 2, 2]), torch.tensor([3, 4, 5, 10, 7, 8, 9])
    pages = table[slots, positions // 4]
    landed = (pages >= 0) & (pages < 9)
    assert landed.tolist() == [True, True, True, True, False, True, True]
    where, inside, of = pages[landed], positions[landed] % 4, torch.tensor(rows)[landed]
    assert torch.equal(cache.cpu()[where, 0, :, inside], k[of])
    assert torch.equal(cache.cpu()[where, 1, :, inside], v[of])
    untouched = torch.ones(9, 4, dtype=torch.bool)
    untouched[where, inside] = False
    assert cache.cpu().movedim(3, 1)[untouched].isnan().all()
    before = cache.clone()
    run(qkv[:1], 32, cache, (1,), (12,), table=table)
    assert torch.equal(before.nan_to_num(), cache.nan_to_num())


def test_queries_alone():
    qkv = random(3, (HEADS + 2 * KV_HEADS) * 16)
    assert torch.equal(run(qkv, 16, queries=(3,)), split(qkv, 16)[0])


# Triton's interpreter loses the carry where rounding to fp8 reaches the next power of two.
@pytest.mark.parametrize("kind", [torch.int8] + ([torch.float8_e4m3fn] if PLACE.type == "cuda" else []))
@pytest.mark.parametrize("per_head", [False, True])
def test_quantised_caches_hold_rounded_and_saturated_numbers(kind, per_head):
    qkv = random(COUNT, (HEADS + 2 * KV_HEADS) * 32) * 3
    qkv[0, -5:] = torch.tensor([1e6, -1e6, 0.5 / 20, 1.5 / 20, 2.5 / 20])
    scales = [torch.tensor([20.0, 31.0] if per_head else [20.0]), torch.tensor([20.0, 20.0] if per_head else [20.0])]
    cache = torch.zeros(1, 2, KV_HEADS, COUNT, 32, dtype=kind, device=PLACE)
    run(qkv, 32, cache, key_scale=scales[0], value_scale=scales[1])
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
    cache = torch.full((1, 2, KV_HEADS, 12, 16), float("nan"), device=PLACE)
    run(qkv, 16, cache, (30,), sinks=2, cyclic=True)
    _, k, v = split(qkv, 16)
    held = [0, 1, *(next(t for t in range(20, 30) if 2 + (t - 2) % 10 == place) for place in range(2, 12))]
    assert torch.equal(cache[0, 0].cpu().transpose(0, 1), k[held])
    assert torch.equal(cache[0, 1].cpu().transpose(0, 1), v[held])
