"""Attention layers as people write them: one head over `[B, S, D]`, and many heads over `[S, B, E]`."""

import math
from collections import OrderedDict

import torch
from torch import nn


class SelfAttention(nn.Module):
    """One head, a mask `[B, S, S]` whose zeros are filled with -1e3: a row of zeros is uniform."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.qkv_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv_proj(x).chunk(3, dim=-1)
        score = torch.matmul(q, k.transpose(-2, -1)) / (self.dim**0.5)
        score = score.masked_fill(mask == 0, -1e3)
        return self.out_proj(torch.matmul(score.softmax(dim=-1), v))


class LengthFirstAttention(nn.Module):
    """Many heads with the length first, batched products over B*N, an additive mask `[B, 1, 1, S]`, dropout.

    With `keep`, scores and context of the last run are kept in a dict, for distillation.
    """

    def __init__(self, hidden: int, heads: int, keep: bool = False) -> None:
        super().__init__()
        self.heads, self.size = heads, hidden // heads
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.dropout = nn.Dropout(0.5)
        self.keep = keep
        self.kept: OrderedDict[str, torch.Tensor] = OrderedDict()

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), x.size(1) * self.heads, self.size).transpose(0, 1)

    def split_key(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), x.size(1) * self.heads, self.size).permute(1, 2, 0)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        length, batch = hidden_states.size(0), hidden_states.size(1)
        query, key = self.split(self.query(hidden_states)), self.split_key(self.key(hidden_states))
        value = self.split(self.value(hidden_states))
        scores = torch.bmm(query, key).view(batch, self.heads, length, length)
        scores = scores / math.sqrt(self.size) + attention_mask
        probs = self.dropout(torch.softmax(scores, dim=-1)).view(batch * self.heads, length, length)
        context = torch.bmm(probs, value).transpose(0, 1).contiguous()
        context = context.view(length, batch, self.heads * self.size)
        if self.keep:
            self.kept["attention_scores"] = scores
            self.kept["value_states"] = context
        return context
