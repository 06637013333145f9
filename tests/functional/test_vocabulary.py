"""Words and validity rules of attention."""

import pytest
import torch

from qontext.errors import ArgumentError
from qontext.functional import (
    AttentionMaskType,
    AttentionParams,
    KeyValueCacheParams,
    LayerNormPositionType,
    LayerNormType,
    PositionEmbeddingType,
    RotaryScalingType,
)


def test_numbers_are_those_of_the_seed():
    assert [(m.name, int(m)) for m in AttentionMaskType] == [("padding", 0), ("causal", 1), ("bidirectional", 2)]
    assert PositionEmbeddingType.choices() == [
        "learned_absolute",
        "rope_gptj",
        "rope_gpt_neox",
        "alibi",
        "alibi_with_scale",
        "relative",
    ]
    assert [p.value for p in PositionEmbeddingType if p.is_rope()] == [1, 2]
    assert [p.value for p in PositionEmbeddingType if p.is_alibi()] == [3, 4]
    assert [r.name for r in RotaryScalingType] == ["none", "linear", "dynamic", "yarn", "llama3"]
    assert [int(x) for x in LayerNormType] == [0, 1, 2]
    assert [int(x) for x in LayerNormPositionType] == [0, 1]


def full_params(**changes):
    lengths = torch.tensor([3, 5], dtype=torch.int32)
    given = {
        "sequence_length": lengths,
        "context_lengths": lengths,
        "host_context_lengths": lengths,
        "max_context_length": 5,
        "host_request_types": torch.zeros(2, dtype=torch.int32),
        "encoder_input_lengths": lengths,
        "encoder_max_input_length": 5,
    }
    return AttentionParams(**{**given, **changes})


@pytest.mark.parametrize("name", ["sequence_length", "context_lengths", "host_request_types", "max_context_length"])
def test_fused_attention_needs_its_lengths(name):
    assert full_params().is_valid(True, False)
    params = full_params(**{name: None})
    assert not params.is_valid(True, False)
    assert params.is_valid(False, False)
    with pytest.raises(ArgumentError, match=f"{name} is None; fused attention needs"):
        params.check(True, False)


def test_packed_input_needs_lengths_on_the_host_and_fused_attention():
    assert full_params().is_valid(True, True)
    assert not full_params(host_context_lengths=None).is_valid(True, True)
    assert full_params(host_context_lengths=None).is_valid(True, False)
    assert not full_params().is_valid(False, True)


def test_cross_attention_can_be_valid():
    """In TensorRT-LLM 0.5.0 it never is."""
    assert full_params().is_valid_cross_attn(True)
    assert AttentionParams().is_valid_cross_attn(False)
    for name in ("encoder_input_lengths", "encoder_max_input_length"):
        params = full_params(**{name: None})
        assert not params.is_valid_cross_attn(True)
        with pytest.raises(ArgumentError, match=f"{name} is None; cross attention needs"):
            params.check(True, False, do_cross_attention=True)


def test_max_context_length_is_a_number():
    with pytest.raises(ArgumentError, match="max_context_length is a Tensor"):
        full_params(max_context_length=torch.tensor(5)).check(True, False)
    with pytest.raises(ArgumentError, match="max_context_length is 0"):
        full_params(max_context_length=0).check(True, False)


def test_cache_params():
    cache, lengths = torch.zeros(2, 2, 1, 8, 4), torch.zeros(2, dtype=torch.int32)
    whole = KeyValueCacheParams([cache], lengths, cache_indirection=torch.zeros(1, 2, 8, dtype=torch.int32))
    assert whole.is_valid(True, beam_width=2)
    assert whole.get_first_past_key_value() is cache
    assert whole.get_first_kv_cache_block_pointers() is None
    with pytest.raises(ArgumentError, match="host_past_key_value_lengths is None"):
        KeyValueCacheParams([cache]).check(True)
    with pytest.raises(ArgumentError, match="cache_indirection is None, but there are 4 beams"):
        KeyValueCacheParams([cache], lengths).check(True, beam_width=4)
    with pytest.raises(ArgumentError, match="only fused attention reads paged caches"):
        KeyValueCacheParams([cache], kv_cache_block_pointers=[lengths]).check(False)
    with pytest.raises(ArgumentError, match="pages need their pool"):
        KeyValueCacheParams(None, lengths, [lengths]).check(True)
    with pytest.raises(ArgumentError, match="past_key_value is an empty list"):
        KeyValueCacheParams([], lengths).check(True)
