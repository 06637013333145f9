"""Models that the tests of reports build."""

import torch
import transformers as tf

from qontext.graph.model import Model
from qontext.ops.network import Network


def bert(path, layers=3):
    """A random BERT for fill-mask with odd sizes."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 60, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": 100}
    tf.BertForMaskedLM(tf.BertConfig(vocab_size=99, max_position_embeddings=64, **sizes)).save_pretrained(path)
    return path


def chain(nodes, blocks):
    """A model of `nodes` elementwise operators that no rule fuses, in numbered blocks, each unlike the one before."""
    net = Network("chain")
    x = net.input("x", "float32", ["B", "S", 16])
    kinds = ("Abs", "Neg", "Sigmoid", "Tanh", "Relu")
    each = nodes // blocks
    for block in range(blocks):
        with net.scope(f"stack.layer.{block}"):
            start = x
            for i in range(each - 1):
                x = net.op(kinds[(i + block + i * block) % len(kinds)], x)
            x = net.op("Add", x, start)
    net.output(x, "y")
    return Model("chain", net.graph, net.ledger())
