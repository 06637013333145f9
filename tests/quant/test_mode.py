"""The truth table of QuantMode."""

from itertools import product

import pytest

from qontext.errors import ArgumentError
from qontext.quant.mode import QuantMode

NAMES = ("quantize_weights", "quantize_activations", "per_token", "per_channel", "per_group", "use_int4_weights")


def legal(weights, activations, token, channel, group, int4):
    if activations and not weights:
        return False
    if (token or channel) and not (weights and activations):
        return False
    if int4 and (not weights or activations):
        return False
    return not (group and (not weights or activations))


@pytest.mark.parametrize("settings", list(product((False, True), repeat=6)))
def test_every_combination(settings):
    described = dict(zip(NAMES, settings, strict=True))
    if not legal(*settings):
        with pytest.raises(ArgumentError, match=r"needs|goes with"):
            QuantMode.from_description(**described)
        return
    mode = QuantMode.from_description(**described)
    weights, activations, token, channel, group, int4 = settings
    assert mode.weight_bits == (None if not weights else 4 if int4 else 8)
    assert mode.is_weight_only == (weights and not activations)
    assert mode.has_activations_and_weights == (weights and activations)
    assert mode.has_dynamic_token_scales == token
    assert bool(mode & QuantMode.PER_CHANNEL) == channel
    assert bool(mode & QuantMode.PER_GROUP) == group


def test_shorthands():
    assert QuantMode.use_smooth_quant(True, True) == (
        QuantMode.INT8_WEIGHTS | QuantMode.ACTIVATIONS | QuantMode.PER_TOKEN | QuantMode.PER_CHANNEL
    )
    assert QuantMode.use_weight_only() == QuantMode.INT8_WEIGHTS
    assert QuantMode.use_weight_only(True, True) == QuantMode.INT4_WEIGHTS | QuantMode.PER_GROUP


def test_caches():
    assert QuantMode.from_description(use_fp8_kv_cache=True).has_quantised_cache
    assert not QuantMode.from_description(use_fp8_qdq=True).has_quantised_cache
    with pytest.raises(ArgumentError, match="not both"):
        QuantMode.from_description(use_int8_kv_cache=True, use_fp8_kv_cache=True)
