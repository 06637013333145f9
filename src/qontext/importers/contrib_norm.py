"""Normalisations and embeddings of ONNX Runtime's `com.microsoft` domain."""

from collections.abc import Sequence

import onnx_ir as ir

from ..ops.embed_layer_norm.op import OP as EMBED_LAYER_NORM
from ..ops.layer_norm.op import OP as LAYER_NORM
from ..ops.rms_norm.op import OP as RMS_NORM
from ..ops.skip_layer_norm.op import OP as SKIP_LAYER_NORM
from .contrib_site import Site

Results = Sequence[ir.Value | None]


def skip_layer_normalization(site: Site) -> Results:
    """SkipLayerNormalization: LayerNorm(input + skip + bias), and that sum as output 3.

    A skip that is repeated for every sequence, `[S, E]` or `[1, S, E]`, is added on its own.
    """
    x, skip, weight = site.needed(0, "input"), site.needed(1, "skip"), site.needed(2, "gamma")
    bias, x_bias = site.input(3), site.input(4)
    epsilon = site.number("epsilon", 1e-12)
    if site.shape(x, "input") == site.shape(skip, "skip"):
        wanted = (True, site.wants(3))
        y, total = site.add(SKIP_LAYER_NORM, x, skip, weight, bias, x_bias, wanted=wanted, epsilon=epsilon)
        return [y, None, None, total]
    total = _sum(site, x, skip, x_bias)
    return [site.add(LAYER_NORM, total, weight, bias, epsilon=epsilon), None, None, total]


def skip_simplified_layer_normalization(site: Site) -> Results:
    """SkipSimplifiedLayerNormalization: RMSNorm(input + skip + bias), and that sum as output 3."""
    weight = site.needed(2, "gamma")
    total = _sum(site, site.needed(0, "input"), site.needed(1, "skip"), site.input(3))
    return [site.add(RMS_NORM, total, weight, epsilon=site.number("epsilon", 1e-12)), None, None, total]


def _sum(site: Site, x: ir.Value, skip: ir.Value, bias: ir.Value | None) -> ir.Value:
    total: ir.Value = site.add("Add", x, skip)
    return total if bias is None else site.add("Add", total, bias)


def simplified_layer_normalization(site: Site) -> Results:
    """SimplifiedLayerNormalization: RMSNorm over the last axis."""
    x = site.needed(0, "X")
    axis = site.integer("axis", -1)
    if axis not in (-1, len(site.shape(x, "X")) - 1):
        raise site.refusal(f"attribute 'axis' is {axis}; allowed is the last axis, -1")
    # Statistics are always kept in float32 here, which is what 1 (FLOAT) asks for.
    site.integer("stash_type", 1, (1,))
    return [site.add(RMS_NORM, x, site.needed(1, "scale"), epsilon=site.number("epsilon", 1e-5))]


def embed_layer_normalization(site: Site) -> Results:
    """EmbedLayerNormalization: the embedding block; output 1 counts the mask, output 2 is the sum before the norm."""
    types, type_table = site.input(1), site.input(4)
    # 0 (none) and 1 (counts) only tell shape inference what output 1 is.
    site.integer("mask_index_type", 0, (0, 1))
    epsilon = site.number("epsilon", 1e-12)
    mask = site.input(7)
    if site.wants(1) and mask is None:
        raise site.refusal("output 1 (mask_index) is read by the graph, but there is no mask to count")
    y, total, lengths = site.add(
        EMBED_LAYER_NORM,
        site.needed(0, "input_ids"),
        site.needed(2, "word_embedding"),
        site.input(8),
        site.needed(3, "position_embedding"),
        types,
        # Without segment ids ONNX Runtime adds no segment embedding, not row 0 of it.
        type_table if types is not None else None,
        site.needed(5, "gamma"),
        site.needed(6, "beta"),
        mask,
        wanted=(True, site.wants(2), site.wants(1)),
        epsilon=epsilon,
    )
    return [y, lengths, total]
