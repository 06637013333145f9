"""RotaryEmbedding in plain torch."""

import torch

from ..embed_layer_norm.ids import check_ids

FLAT_LAYOUTS = ("B S (N D)", "T (N D)", "S B (N D)")
LAYOUTS = ("B N S D", "B S N D", *FLAT_LAYOUTS)


def reference(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    position_ids: torch.Tensor | None = None,
    *,
    layout: str = "B N S D",
    pairing: str = "half",
    num_heads: int = 0,
) -> torch.Tensor:
    """Turns pairs (a, b) of each head by an angle: (a cos - b sin, b cos + a sin); what has no pair stays.

    The pairs are (i, i + R) for "half" (GPT-NeoX, Llama) and (2i, 2i + 1) for "interleaved" (GPT-J), i < R, where R is
    the width of cos and sin.
    """
    if position_ids is not None:
        check_ids("position_ids", position_ids, "cos", len(cos), "the sequence is longer than the rotary table")
        cos, sin = cos[position_ids.long()], sin[position_ids.long()]
    if layout == "S B (N D)":
        cos, sin = cos.transpose(0, 1), sin.transpose(0, 1)
    # One angle serves all heads of a token: the head axis is the last but one, or the second in "B N S D".
    at = 1 if layout == "B N S D" else -2
    cos, sin = cos.unsqueeze(at), sin.unsqueeze(at)
    heads = x.unflatten(-1, (num_heads, -1)) if layout in FLAT_LAYOUTS else x
    pairs = cos.shape[-1]
    turned, rest = heads[..., : 2 * pairs], heads[..., 2 * pairs :]
    if pairing == "half":
        a, b = turned[..., :pairs], turned[..., pairs:]
    else:
        a, b = turned[..., 0::2], turned[..., 1::2]
    both = (a * cos - b * sin, b * cos + a * sin)
    y = torch.cat(both, -1) if pairing == "half" else torch.stack(both, -1).flatten(-2)
    return torch.cat([y, rest], -1).reshape(x.shape)
