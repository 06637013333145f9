"""Attention taken apart in the spellings of exporters."""

import math
from collections.abc import Callable

import torch

from qontext.ops.network import Network

E, N = 24, 4
D = E // N
SCALE = 1 / math.sqrt(D)


def sizes(net: Network, x, *axes: int):
    """The sizes of some axes, each [1], as exporters compute them."""
    shape = net.op("Shape", x)
    return [net.op("Gather", shape, torch.tensor([a])) for a in axes]


def heads(net: Network, x, key: bool = False, size: int = D):
    """[B, S, N*D] -> [B, N, S, D], with a key -> [B, N, D, S] in one transpose."""
    target = net.op("Concat", *sizes(net, x, 0, 1), torch.tensor([-1, size]), axis=0)
    return net.op("Transpose", net.op("Reshape", x, target), perm=[0, 2, 3, 1] if key else [0, 2, 1, 3])


def merged(net: Network, context, like):
    """[B, N, S, D] -> [B, S, N*D]."""
    turned = net.op("Transpose", context, perm=[0, 2, 1, 3])
    return net.op("Reshape", turned, net.op("Concat", *sizes(net, like, 0, 1), torch.tensor([-1]), axis=0))


Masking = Callable[[Network, object], object]


def plain(net: Network, q, k, v, mask: Masking = lambda net, s: s, scale: str = "scores", two_turns: bool = False):
    """[B, S, E] three times -> [B, S, E]; `scale` is one of q, k, both, scores, divided."""
    root = math.sqrt(SCALE)
    qh, vh = heads(net, q), heads(net, v)
    kh = net.op("Transpose", heads(net, k), perm=[0, 1, 3, 2]) if two_turns else heads(net, k, key=True)
    if scale in ("q", "both"):
        qh = net.op("Mul", qh, SCALE if scale == "q" else root)
    if scale in ("k", "both"):
        kh = net.op("Mul", SCALE if scale == "k" else root, kh)
    scores = net.op("MatMul", qh, kh)
    if scale == "scores":
        scores = net.op("Mul", scores, SCALE)
    if scale == "divided":
        scores = net.op("Div", scores, math.sqrt(D))
    probs = net.op("Softmax", mask(net, scores), axis=-1)
    return merged(net, net.op("MatMul", probs, vh), q)


def single(net: Network, q, k, v, mask: Masking = lambda net, s: s):
    """One head on [B, S, D], as in the notebook."""
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1]))
    probs = net.op("Softmax", mask(net, net.op("Div", scores, math.sqrt(E))), axis=-1)
    return net.op("MatMul", probs, v)


def sequence_first(net: Network, q, k, v, mask: Masking = lambda net, s: s):
    """[S, B, E] by bmm on [B*N, S, D], the scores in four axes for the mask alone."""
    length, batch = sizes(net, q, 0, 1)
    several = net.op("Mul", batch, torch.tensor([N]))
    rows = net.op("Concat", length, several, torch.tensor([D]), axis=0)
    qh = net.op("Transpose", net.op("Reshape", q, rows), perm=[1, 0, 2])
    kh = net.op("Transpose", net.op("Reshape", k, rows), perm=[1, 2, 0])
    vh = net.op("Transpose", net.op("Reshape", v, rows), perm=[1, 0, 2])
    four = net.op("Concat", batch, torch.tensor([N]), length, length, axis=0)
    scores = net.op("Div", net.op("Reshape", net.op("MatMul", qh, kh), four), math.sqrt(D))
    probs = net.op("Softmax", mask(net, scores), axis=-1)
    flat = net.op("Reshape", probs, net.op("Concat", several, length, length, axis=0))
    context = net.op("Transpose", net.op("MatMul", flat, vh), perm=[1, 0, 2])
    return net.op("Reshape", context, net.op("Concat", length, batch, torch.tensor([E]), axis=0))
