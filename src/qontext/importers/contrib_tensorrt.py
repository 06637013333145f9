"""TensorRT's BERT plugins: all in floating point, and attention in INT8 too.

Their tensors have the length first, `[S, B, E, 1, 1]` when padded and `[T, E, 1, 1]` when packed (`var_seqlen`); the
two axes of 1 come from convolutions that stood in for linear layers. Attention in INT8 multiplies bytes by the scales
that its attributes state, else by scales that are found at run time: those of a plan are not in the graph. Norms in
INT8 are refused.

Source: https://github.com/NVIDIA/TensorRT/tree/main/plugin (the interfaces and their documentation).
"""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch

from ..graph.dims import text
from ..ops.embed_layer_norm.op import OP as EMBED_LAYER_NORM
from ..ops.gelu.op import OP as GELU
from ..ops.group_norm.op import OP as GROUP_NORM
from ..ops.qkv_to_context.op import OP as QKV_TO_CONTEXT
from ..ops.quant_qkv_to_context.op import OP as QUANT_QKV_TO_CONTEXT
from ..ops.skip_layer_norm.op import OP as SKIP_LAYER_NORM
from .contrib_site import Site

Results = Sequence[ir.Value | None]

_INT32, _INT64 = 6, 7
_INT8_TYPE = 2
# The plugin adds the smallest step of float32 to the variance; there is no attribute for it.
_SKIP_EPSILON = torch.finfo(torch.float32).eps
# The embedding plugin adds nothing; this is too small to change a result and keeps a constant row finite.
_EMBED_EPSILON = 1e-12


def _version(site: Site, allowed: tuple[int, ...]) -> int:
    text_of = site.word("plugin_version", str(allowed[0]))
    site.word("plugin_namespace", "")
    if not text_of.isdigit() or int(text_of) not in allowed:
        raise site.refusal(f"plugin_version is {text_of!r}; allowed is one of {', '.join(map(str, allowed))}")
    return int(text_of)


def _float_type(site: Site) -> None:
    """Takes `type_id`: 0 (float32) and 1 (float16) both run in the precision of the build."""
    if site.integer("type_id", 0) == _INT8_TYPE:
        raise site.refusal("attribute 'type_id' is 2 (INT8)")


def qkv_to_context(site: Site) -> Results:
    """CustomQKVToContextPluginDynamic 1, 2, 4, 5: heads interleaved in the projection, valid counts for a mask.

    With the type INT8 it becomes attention over bytes; versions 3 and 6 are that always.
    """
    version = _version(site, (1, 4, 2, 5, 3, 6))
    heads, hidden = site.integer("num_heads"), site.integer("hidden_size")
    # Only an INT8 plan reads these two.
    steps = {"dq_probs": site.number("dq_probs", 1 / 127)}
    steps["use_int8_scale_max"] = bool(site.integer("use_int8_scale_max", 1, (0, 1)))
    if version in (3, 6):
        return _interleaved_bytes(site, heads, hidden, steps)
    in_bytes = site.integer("type_id", 0) == _INT8_TYPE
    operator = QUANT_QKV_TO_CONTEXT if in_bytes else QKV_TO_CONTEXT
    has_mask = site.integer("has_mask", 0, (0, 1))
    packed = bool(site.integer("var_seqlen", 0, (0, 1))) if version in (2, 5) else False
    settings: dict[str, Any] = {"num_heads": heads, **(steps if in_bytes else {})}
    qkv = site.needed(0, "qkv")
    _no_bytes(site, qkv)
    shape = site.shape(qkv, "qkv")
    fused = shape[1 if packed else 2] if len(shape) == (4 if packed else 5) else None
    if fused != 3 * hidden:
        wanted = f"[T, {3 * hidden}, 1, 1]" if packed else f"[S, B, {3 * hidden}, 1, 1]"
        raise site.refusal(f"qkv has shape {text(shape)}; allowed is {wanted}")
    if packed:
        rows = site.along("Squeeze", qkv, [2, 3])
        boundaries = site.add("Cast", site.needed(2, "cu_seqlens"), to=_INT32)
        longest = _length_of(site, site.needed(3, "max_seqlen"))
        operands = (rows, None, None, None, boundaries, longest)
        context = site.add(operator, *operands, layout="T (N three D)", **settings)
        return [site.along("Unsqueeze", context, [2, 3])]
    lengths = _valid_counts(site, site.needed(1, "mask")) if has_mask else None
    return [site.add(operator, qkv, lengths, layout="S B (N three D) 1 1", **settings)]


def _no_bytes(site: Site, qkv: ir.Value) -> None:
    """Refuses a projection in int8 without a scale."""
    if site.dtype(qkv) == torch.int8:
        raise site.refusal("qkv is int8, and no attribute says its scale (versions 3 and 6 have 'use_explicit_int8')")


def _interleaved_bytes(site: Site, heads: int, hidden: int, steps: dict[str, Any]) -> Results:
    """Versions 3 and 6: `[1, 3E, T, 1]` to `[1, E, T, 1]`, packed, in INT8 by explicit scales or by those of the run.

    The plugin's factor on the logits is 1/8, which is 1/sqrt(D) at its only head size, 64.
    """
    explicit = site.integer("use_explicit_int8", 0, (0, 1))
    scales = {name: site.number(name, 0.0) for name in ("input_qkv_scale", "output_ctx_scale")}
    wrong = [f"attribute {name!r} is {value}; with use_explicit_int8 it is over 0" for name, value in scales.items()]
    if explicit and min(scales.values()) <= 0:
        raise site.refusal("; ".join(text for text, value in zip(wrong, scales.values(), strict=True) if value <= 0))
    qkv = site.needed(0, "qkv")
    shape = site.shape(qkv, "qkv")
    if len(shape) != 4 or shape[1] != 3 * hidden:
        raise site.refusal(f"qkv has shape {text(shape)}; allowed is [1, {3 * hidden}, T, 1]")
    stored = site.dtype(qkv) == torch.int8
    if not explicit:
        _no_bytes(site, qkv)
    rows = site.along("Squeeze", site.add("Transpose", qkv, perm=[2, 1, 0, 3]), [2, 3])
    boundaries = site.add("Cast", site.needed(1, "cu_seqlens"), to=_INT32)
    longest = _length_of(site, site.needed(2, "max_seqlen"))
    given = [None, None]
    if explicit:
        given = [site.constant(torch.tensor(value), name) for name, value in scales.items()]
    context = site.add(
        QUANT_QKV_TO_CONTEXT,
        rows,
        *(None, None, None, boundaries, longest, None),
        given[0],
        given[1] if stored else None,
        layout="T (N three D)",
        num_heads=heads,
        **steps,
    )
    return [site.add("Transpose", site.along("Unsqueeze", context, [2, 3]), perm=[2, 1, 0, 3])]


def _valid_counts(site: Site, mask: ir.Value) -> ir.Value:
    """A mask operand as valid counts `[B]`: it is that already, or `[B, 1]`."""
    shape = site.shape(mask, "mask")
    if len(shape) == 1:
        return mask
    if len(shape) == 2 and shape[1] == 1:
        return site.along("Squeeze", mask, [1])
    raise site.refusal(f"the mask has shape {text(shape)}, packed mask words; allowed are valid counts [B] or [B, 1]")


def _length_of(site: Site, carrier: ir.Value) -> ir.Value:
    """The longest sequence, which the plugins read from the *length* of a one-axis tensor; int32 scalar."""
    size = site.along("Squeeze", site.add("Shape", carrier), [0])
    result: ir.Value = site.add("Cast", size, to=_INT32)
    return result


def emb_layer_norm(site: Site) -> Results:
    """CustomEmbLayerNormPluginDynamic: 1 and 6 padded `[S, B]`, 2 to 5 packed `[T]` (3 and 5 return the sum too)."""
    version = _version(site, (1, 2, 3, 4, 5, 6))
    for name in ("output_fp16", "full_mask"):
        site.integer(name, 0, (0, 1))
    site.integer("mha_type_id", 0, (0, 1))
    tables = {
        name: site.constant(_table(site, f"bert_embeddings_{name}"), name)
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")
    }
    norm = {
        name: site.constant(_table(site, f"bert_embeddings_layernorm_{name}").reshape(-1), name)
        for name in ("gamma", "beta")
    }
    ids, types = site.needed(0, "token_id"), site.needed(1, "segment_id")
    packed = version not in (1, 6)
    rank = len(site.shape(ids, "token_id"))
    if rank != (1 if packed else 2):
        raise site.refusal(f"token_id has {rank} axes; allowed is {'[T]' if packed else '[S, B]'}")
    positions = mask = None
    if packed:
        positions = _positions(site, ids, site.needed(2, "cu_seqlens"))
    else:
        ids, types, mask = (site.add("Transpose", v, perm=[1, 0]) for v in (ids, types, site.needed(2, "input_mask")))
    residual = version in (3, 5) and site.wants(1)
    y, total, lengths = site.add(
        EMBED_LAYER_NORM,
        ids,
        tables["word_embeddings"],
        positions,
        tables["position_embeddings"],
        types,
        tables["token_type_embeddings"],
        norm["gamma"],
        norm["beta"],
        mask,
        wanted=(True, residual, not packed and site.wants(1)),
        epsilon=_EMBED_EPSILON,
    )
    if packed:
        return [site.along("Unsqueeze", v, [2, 3]) if v.name else None for v in (y, total)]
    for use in site.node.outputs[1].uses() if len(site.node.outputs) > 1 else ():
        if use.node.op_type != "CustomQKVToContextPluginDynamic":
            raise site.refusal(f"its mask, in a layout of the plugins' own, is read by {use.node.op_type}")
    if len(site.node.outputs) > 1 and site.node.outputs[1].is_graph_output():
        raise site.refusal("its mask, in a layout of the plugins' own, is an output of the graph")
    rows = site.add("Transpose", y, perm=[1, 0, 2])
    return [site.along("Unsqueeze", rows, [3, 4]), lengths]


def _table(site: Site, name: str) -> torch.Tensor:
    found = site.array(name)
    assert found is not None
    return found


def _positions(site: Site, ids: ir.Value, cu_seqlens: ir.Value) -> ir.Value:
    """Where each packed token stands in its sequence, `[T]`: its place minus the start of its sequence."""
    bounds = site.add("Cast", cu_seqlens, to=_INT64)
    count = site.add("Size", ids)
    zero, one = site.constant(torch.tensor(0), "zero"), site.constant(torch.tensor(1), "one")
    places = site.add("Range", zero, count, one)
    before = site.add("Less", site.along("Unsqueeze", places, [1]), bounds)
    # A token has reached the starts of all sequences up to its own; the end of the batch it never reaches.
    reached = site.add("Cast", site.add("Not", before), to=_INT64)
    sequence = site.add("Sub", site.along("ReduceSum", reached, [1], keepdims=0), one)
    result: ir.Value = site.add("Sub", places, site.add("Gather", bounds, sequence, axis=0))
    return result


def skip_layer_norm(site: Site) -> Results:
    """CustomSkipLayerNormPluginDynamic 1, 2, 5, 6: over axis 2 of `[S, B, E, 1, 1]` or axis 1 of `[T, E, 1, 1]`."""
    _version(site, (1, 2, 5, 6))
    _float_type(site)
    x, skip = site.needed(0, "input"), site.needed(1, "skip")
    weight, bias = _vector(site, "gamma"), _vector(site, "beta")
    given = site.array("bias", optional=True)
    x_bias = None if given is None else site.constant(given.reshape(-1), "bias")
    width = site.integer("ld", weight.numel())
    if width != weight.numel():
        raise site.refusal(f"attribute 'ld' is {width}, but gamma has {weight.numel()} values")
    axes = _ones(site, x, "input", width)
    rows = [site.along("Squeeze", v, axes) for v in (x, skip)]
    operands = (*rows, site.constant(weight, "gamma"), site.constant(bias, "beta"), x_bias)
    y = site.add(SKIP_LAYER_NORM, *operands, epsilon=_SKIP_EPSILON)
    return [site.along("Unsqueeze", y, axes)]


def _vector(site: Site, name: str) -> torch.Tensor:
    found = site.array(name)
    assert found is not None
    return found.reshape(-1)


def _ones(site: Site, x: ir.Value, what: str, width: int) -> list[int]:
    """The two axes of 1 at the end of an operand with `width` features."""
    shape = site.shape(x, what)
    if len(shape) not in (4, 5) or shape[-3] != width or any(d not in (1, None) for d in shape[-2:]):
        raise site.refusal(f"{what} has shape {text(shape)}; allowed are [S, B, {width}, 1, 1] and [T, {width}, 1, 1]")
    return [len(shape) - 2, len(shape) - 1]


def gelu(site: Site) -> Results:
    """CustomGeluPluginDynamic 1: the tanh form over `[S, B, E, 1, 1]` or `[S, B, E]`, with an optional bias."""
    _version(site, (1,))
    _float_type(site)
    x, bias = site.needed(0, "input"), site.array("bias", optional=True)
    if "ld" in site.node.attributes:
        site.integer("ld")
    if bias is None:
        return [site.add(GELU, x, approximate="tanh")]
    value = site.constant(bias.reshape(-1), "bias")
    if len(site.shape(x, "input")) == 3:
        return [site.add(GELU, x, value, approximate="tanh")]
    axes = _ones(site, x, "input", bias.numel())
    y = site.add(GELU, site.along("Squeeze", x, axes), value, approximate="tanh")
    return [site.along("Unsqueeze", y, axes)]


def fully_connected(site: Site) -> Results:
    """CustomFCPluginDynamic 1: `[S, B, K, 1, 1]` times `[K, out]`."""
    _version(site, (1,))
    _float_type(site)
    x, weight, out = site.needed(0, "input"), site.array("W"), site.integer("out_dims")
    assert weight is not None
    if weight.numel() % out:
        raise site.refusal(f"attribute 'W' has {weight.numel()} values, no multiple of out_dims {out}")
    features = weight.numel() // out
    axes = _ones(site, x, "input", features)
    # Unlike a linear layer's, these weights are held as [K, out].
    y = site.add("MatMul", site.along("Squeeze", x, axes), site.constant(weight.reshape(features, out), "W"))
    return [site.along("Unsqueeze", y, axes)]


def group_norm(site: Site) -> Results:
    """GroupNormalizationPlugin 1: over groups of channels of `[B, C, ...]`."""
    _version(site, (1,))
    epsilon = site.number("eps", 1e-5)
    operands = (site.needed(0, "input"), site.needed(1, "scale"), site.needed(2, "bias"))
    return [site.add(GROUP_NORM, *operands, num_groups=site.integer("num_groups"), epsilon=epsilon)]
