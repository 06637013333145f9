"""A small BERT in normal form, as the Hugging Face door emits it: nothing merged yet."""

import torch

from qontext.ops.network import Network

E, F, N, V, P = 32, 48, 4, 50, 64


class Weights:
    """Reproducible random parameters."""

    def __init__(self, net: Network, seed: int = 0):
        self.net = net
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, name: str, *shape: int, scale: float = 0.2, at: float = 0.0):
        return self.net.parameter(name, at + scale * torch.randn(*shape, generator=self.generator))

    def linear(self, x, path: str, out: int, width: int, bias: bool = True):
        with self.net.scope(path):
            weight = self(f"{path}.weight", out, width)
            return self.net.linear(x, weight, self(f"{path}.bias", out) if bias else None)

    def norm(self, x, path: str, width: int = E):
        with self.net.scope(path):
            return self.net.layer_norm(
                x, self(f"{path}.weight", width, at=1.0), self(f"{path}.bias", width), epsilon=1e-12
            )


def self_attention(
    net: Network, weights: Weights, x, mask, path: str, heads: int = N, width: int = E, bias: bool = True
):
    q, k, v = (weights.linear(x, f"{path}.{name}", width, width, bias) for name in ("query", "key", "value"))
    with net.scope(path):
        return net.attention(q, k, v, mask, num_heads=heads, layout="B S (N D)")


def encoder(layers: int = 2, activation: str = "none", mask: bool = True) -> Network:
    """ids -> last_hidden_state, with token types, positions and a padding mask."""
    net = Network("bert")
    weights = Weights(net)
    ids = net.input("input_ids", "int64", ("B", "S"))
    types = net.input("token_type_ids", "int64", ("B", "S"))
    positions = net.input("position_ids", "int64", ("B", "S"))
    allowed = None
    if mask:
        given = net.input("attention_mask", "int64", ("B", "S"))
        allowed = net.op("Unsqueeze", net.op("Cast", given, to=9), net.constant(torch.tensor([1, 2])))
    with net.scope("embeddings"):
        x = net.op("Gather", weights("embeddings.word_embeddings.weight", V, E), ids)
        x = net.op("Add", x, net.op("Gather", weights("embeddings.position_embeddings.weight", P, E), positions))
        x = net.op("Add", x, net.op("Gather", weights("embeddings.token_type_embeddings.weight", 2, E), types))
    x = weights.norm(x, "embeddings.LayerNorm")
    for layer in range(layers):
        path = f"encoder.layer.{layer}"
        context = self_attention(net, weights, x, allowed, f"{path}.attention.self")
        y = weights.linear(context, f"{path}.attention.output.dense", E, E)
        x = weights.norm(net.op("Add", y, x), f"{path}.attention.output.LayerNorm")
        y = weights.linear(x, f"{path}.intermediate.dense", F, E)
        with net.scope(f"{path}.intermediate"):
            y = net.gelu(y, approximate=activation)
        y = weights.linear(y, f"{path}.output.dense", E, F)
        x = weights.norm(net.op("Add", y, x), f"{path}.output.LayerNorm")
    net.output(x, "last_hidden_state")
    return net


def encoder_feeds(batch: int = 3, length: int = 7, seed: int = 1) -> dict[str, torch.Tensor]:
    """Random ids with ragged lengths; the last sequence is all padding."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([length, max(1, length // 2), 0])[:batch]
    return {
        "input_ids": torch.randint(0, V, (batch, length), generator=generator),
        "token_type_ids": torch.randint(0, 2, (batch, length), generator=generator),
        "position_ids": torch.arange(length).expand(batch, length).contiguous(),
        "attention_mask": (torch.arange(length) < lengths[:, None]).long(),
    }
