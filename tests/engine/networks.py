"""A BERT-like encoder built by hand from fused operators, for tests of everything behind the fusion."""

import torch

from qontext.graph.model import InputRule, Model
from qontext.ops.network import Network


def encoder(
    hidden: int = 64, heads: int = 4, layers: int = 2, inner: int = 128, vocabulary: int = 100, positions: int = 40
) -> Model:
    """An encoder with random weights: ids, mask and positions in, the last hidden state and the first token out."""
    generator = torch.Generator().manual_seed(0)
    net = Network("encoder")

    def weight(name, *shape, centre=0.0):
        return net.parameter(name, centre + 0.1 * torch.randn(*shape, generator=generator))

    ids, mask, at = (net.input(n, "int64", ("B", "S")) for n in ("input_ids", "attention_mask", "position_ids"))
    x = net.embed_layer_norm(
        ids,
        weight("word", vocabulary, hidden),
        at,
        weight("position", positions, hidden),
        weight=weight("embed.weight", hidden, centre=1.0),
        bias=weight("embed.bias", hidden),
    )
    keep = net.op("Cast", mask, to=9)

    def norm(name, x, skip):
        return net.skip_layer_norm(
            x, skip, weight(f"{name}.weight", hidden, centre=1.0), weight(f"{name}.bias", hidden)
        )

    for i in range(layers):
        with net.scope(f"layer.{i}"):
            qkv = net.linear(x, weight(f"{i}.qkv", 3 * hidden, hidden), weight(f"{i}.qkv.bias", 3 * hidden))
            context = net.qkv_to_context(qkv, mask=keep, num_heads=heads, layout="B S (three N D)")
            y = net.linear(context, weight(f"{i}.out", hidden, hidden), weight(f"{i}.out.bias", hidden))
            x = norm(f"{i}.norm1", y, x)
            y = net.linear(x, weight(f"{i}.up", inner, hidden), weight(f"{i}.up.bias", inner), activation="gelu_erf")
            y = net.linear(y, weight(f"{i}.down", hidden, inner), weight(f"{i}.down.bias", hidden))
            x = norm(f"{i}.norm2", y, x)
    net.output(x, "last_hidden_state")
    first = net.op("Gather", x, torch.tensor(0), axis=1)
    net.output(net.linear(first, weight("pool", 5, hidden)), "logits")
    rules = {
        "input_ids": InputRule(limit=vocabulary),
        "attention_mask": InputRule("ones"),
        "position_ids": InputRule("arange", limit=positions),
    }
    return Model(
        "encoder", net.graph, net.ledger(), rules, None, {"max_length": positions}, attention_mask="attention_mask"
    )


def batch(rows: int = 3, length: int = 17, vocabulary: int = 100) -> dict[str, torch.Tensor]:
    """Ids and a mask with a full row, a right-padded row, and one with left padding and a hole."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, vocabulary, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    mask[2:, :2] = 0
    mask[2:, 5] = 0
    return {"input_ids": ids, "attention_mask": mask}
