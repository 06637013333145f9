"""Packing and unpacking undo each other for every mask: padding on either side, holes, empty sequences."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qontext.ops.catalogue import BY_NAME

pack_index, pack_tokens = BY_NAME["PackIndex"], BY_NAME["PackTokens"]
unpack_tokens, first_tokens = BY_NAME["UnpackTokens"], BY_NAME["FirstTokens"]
MASKS = arrays.arrays("int64", st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.integers(0, 1))


@settings(max_examples=60, deadline=None)
@given(MASKS, st.integers(1, 7))
def test_valid_tokens_survive_and_padding_becomes_zero(array, width):
    mask = torch.from_numpy(array)
    x = torch.rand(*mask.shape, width) + 1
    token_index, cu_seqlens, max_seqlen = pack_index(mask)
    packed = pack_tokens(x, token_index)
    assert packed.shape == (int(mask.sum()), width)
    assert torch.equal(unpack_tokens(packed, token_index, mask), x * mask[..., None])
    assert torch.equal(cu_seqlens.diff().long(), mask.sum(1))
    assert int(max_seqlen) == int(mask.sum(1).max())
    first = first_tokens(packed, cu_seqlens)
    for b, row in enumerate(mask):
        valid = row.nonzero().flatten()
        assert torch.equal(first[b], x[b, valid[0]] if len(valid) else torch.zeros(width))
