"""What each process of the tensor-parallel test does: its part of every layer, compared with the whole one."""

import torch
import torch.distributed as dist

from qontext.dtypes import relative_rms
from qontext.functional import AttentionMaskType, AttentionParams, KeyValueCacheParams, PositionEmbeddingType
from qontext.layers import (
    MLP,
    Attention,
    BertAttention,
    ColumnLinear,
    Embedding,
    GatedMLP,
    kv_head_rows,
    make_group,
    padded_vocabulary,
)

HIDDEN, HEADS, SIZE, INNER, WORDS = 48, 8, 6, 32, 37


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def loaded(layer, weights, place):
    layer.load(weights)
    return layer.to(place)


def attention_weights(kv_heads, size, rank):
    """The weights of one rank: its query heads, its key heads (repeated where there are fewer than ranks)."""
    qkv, bias = numbers((HEADS + 2 * kv_heads) * SIZE, HIDDEN, seed=1), numbers((HEADS + 2 * kv_heads) * SIZE, seed=2)
    each = HEADS // size
    query = list(range(rank * each, (rank + 1) * each))
    held = kv_head_rows(kv_heads, size, rank)
    heads = query + [HEADS + h for h in held] + [HEADS + kv_heads + h for h in held]
    rows = torch.cat([torch.arange(h * SIZE, (h + 1) * SIZE) for h in heads])
    columns = slice(rank * each * SIZE, (rank + 1) * each * SIZE)
    return {
        "qkv.weight": qkv[rows],
        "qkv.bias": bias[rows],
        "dense.weight": numbers(HIDDEN, HIDDEN, seed=3)[:, columns],
        "dense.bias": numbers(HIDDEN, seed=4),
    }


def attention(kv_heads, position, group, size, rank, place):
    """Outputs of a context step and a generation step."""
    layer = Attention(
        HIDDEN, HEADS, kv_heads, attention_mask_type=AttentionMaskType.causal, position_embedding_type=position,
        tp_group=group, tp_size=size, tp_rank=rank,
    )  # fmt: skip
    loaded(layer, attention_weights(kv_heads, size, rank), place)
    cache = torch.zeros(2, 2, layer.num_attention_kv_heads, 9, SIZE, device=place)
    lengths, past = torch.tensor([5, 3], dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    outputs = []
    for x, kind in ((numbers(2, 5, HIDDEN, seed=5), 0), (numbers(2, 1, HIDDEN, seed=6), 1)):
        total = past + (lengths if kind == 0 else 1)
        params = AttentionParams(total, lengths, lengths, 5, torch.full((2,), kind, dtype=torch.int32))
        outputs.append(layer(x.to(place), kv_cache_params=KeyValueCacheParams([cache], past), attention_params=params))
        past = total
    return outputs


def bert(group, size, rank, place):
    layer = BertAttention(HIDDEN, HEADS, 4, tp_group=group, tp_size=size, tp_rank=rank)
    loaded(layer, attention_weights(4, size, rank), place)
    return layer(numbers(2, 5, HIDDEN, seed=7).to(place), input_lengths=torch.tensor([5, 2], dtype=torch.int32))


def feed_forward(kind, group, size, rank, place):
    layer = kind(HIDDEN, INNER, "silu", tp_group=group, tp_size=size)
    part = slice(rank * INNER // size, (rank + 1) * INNER // size)
    names = ["fc", "gate"] if kind is GatedMLP else ["fc"]
    weights = {}
    for i, name in enumerate(names):
        weights |= {
            f"{name}.weight": numbers(INNER, HIDDEN, seed=10 + i)[part],
            f"{name}.bias": numbers(INNER, seed=20 + i)[part],
        }
    weights |= {"proj.weight": numbers(HIDDEN, INNER, seed=30)[:, part], "proj.bias": numbers(HIDDEN, seed=31)}
    return loaded(layer, weights, place)(numbers(3, HIDDEN, seed=8).to(place))


def words(group, size, rank, place):
    """An embedding and a head over a vocabulary that no number of ranks divides: its rows are padded."""
    ids, rows = torch.tensor([[0, 36, 18], [9, 1, 27]]), padded_vocabulary(WORDS, size)
    table = torch.cat([numbers(WORDS, HIDDEN, seed=40), torch.zeros(rows - WORDS, HIDDEN)])
    part = slice(rank * rows // size, (rank + 1) * rows // size)
    by_row = Embedding(rows, HIDDEN, tp_group=group, tp_size=size, tp_rank=rank)
    loaded(by_row, {"weight": table[part]}, place)
    by_column = Embedding(WORDS, HIDDEN, tp_group=group, tp_size=size, tp_rank=rank, sharding_dim=1)
    columns = slice(rank * HIDDEN // size, (rank + 1) * HIDDEN // size)
    loaded(by_column, {"weight": table[:WORDS, columns]}, place)
    head = ColumnLinear(HIDDEN, rows, bias=False, tp_group=group, tp_size=size)
    loaded(head, {"weight": table[part]}, place)
    ids = ids.to(place)
    hidden = by_row(ids)
    return hidden, by_column(ids), head(hidden)[..., :WORDS]


def all_layers(group, size, rank, place="cpu"):
    """Outputs of all layers; on a GPU, where every shape is compiled for, with one number of key heads."""
    found = []
    for kv_heads in (8, 2, 1) if place == "cpu" else (2,):
        found += attention(kv_heads, PositionEmbeddingType.rope_gpt_neox, group, size, rank, place)
    if place == "cpu":
        found += attention(4, PositionEmbeddingType.alibi, group, size, rank, place)
    found.append(bert(group, size, rank, place))
    found += [feed_forward(kind, group, size, rank, place) for kind in (MLP, GatedMLP)]
    return [*found, *words(group, size, rank, place)]


def whole_for_a_gpu():
    """What `all_layers` gives on a GPU, computed on the host."""
    found = attention(2, PositionEmbeddingType.rope_gpt_neox, None, 1, 0, "cpu")
    found.append(bert(None, 1, 0, "cpu"))
    found += [feed_forward(kind, None, 1, 0, "cpu") for kind in (MLP, GatedMLP)]
    return [*found, *words(None, 1, 0, "cpu")]


def worst(rank, size, group, whole, place="cpu"):
    parts = all_layers(group, size, rank, place)
    return max(relative_rms(got.cpu(), want) for got, want in zip(parts, whole, strict=True))


def process(rank, port, results):
    """One of four: all of them as TP 4, and two pairs as TP 2."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=4)
    pairs = [[0, 1], [2, 3]]
    for pair in pairs:
        make_group(pair)
    whole = all_layers(None, 1, 0)
    four = worst(rank, 4, None, whole)
    two = worst(rank % 2, 2, pairs[rank // 2], whole)
    results[rank] = torch.tensor([two, four])
    dist.destroy_process_group()


def gpu_process(rank, port, results):
    """One of two, each with a GPU of its own: TP 2 through NCCL against the whole on the host."""
    place = torch.device("cuda", rank)
    torch.cuda.set_device(place)
    dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, device_id=place)
    results[rank] = worst(rank, 2, None, whole_for_a_gpu(), place)
    dist.destroy_process_group()
