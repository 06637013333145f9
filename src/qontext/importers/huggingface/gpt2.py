"""GPT-2."""

from collections.abc import Mapping
from typing import Any

import torch

from ...models.decoder_config import DecoderConfig
from .config import ACTIVATIONS
from .decoder_family import DecoderFamily, Reader, Shapes, Tensors

_CONVOLUTIONS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def _read(raw: Mapping[str, Any]) -> tuple[DecoderConfig | None, list[str]]:
    reader = Reader(raw)
    hidden, layers, heads = (reader.whole(k, d) for k, d in (("n_embd", 768), ("n_layer", 12), ("n_head", 12)))
    activation = raw.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        reader.problems.append(f"activation_function is {str(activation)[:60]!r}; known are {', '.join(ACTIVATIONS)}")
    if hidden % heads:
        reader.problems.append(f"n_embd {hidden} is no multiple of n_head {heads}")
    if raw.get("add_cross_attention"):
        reader.problems.append("add_cross_attention is true, which is not supported")
    size = hidden // heads
    # Without scale_attn_weights the logits are not divided by the root of the head size: q_scaling takes it back.
    plain = 1.0 if reader.flag("scale_attn_weights", True) else size**-0.5
    by_layer = reader.flag("scale_attn_by_inverse_layer_idx", False)
    config = DecoderConfig(
        vocabulary=reader.whole("vocab_size", 50257),
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_size=size,
        inner=reader.whole("n_inner", 4 * hidden),
        positions=reader.whole("n_positions", 1024),
        epsilon=reader.number("layer_norm_epsilon", 1e-5),
        activation=ACTIVATIONS.get(activation, "gelu"),
        learned=True,
        q_scaling=tuple(plain * (i + 1 if by_layer else 1) for i in range(layers)),
        tied=reader.flag("tie_word_embeddings", True),
    )
    return config, reader.problems


def _shapes(config: DecoderConfig, prefix: str, tensors: Mapping[str, torch.Tensor]) -> Shapes:
    hidden, inner = config.hidden, config.inner
    shapes: Shapes = {f"{prefix}wpe.weight": (config.positions, hidden)}
    for i in range(config.layers):
        at = f"{prefix}h.{i}"
        sizes = ((hidden, 3 * hidden), (hidden, hidden), (hidden, inner), (inner, hidden))
        for name, size in zip(_CONVOLUTIONS, sizes, strict=True):
            shapes[f"{at}.{name}.weight"], shapes[f"{at}.{name}.bias"] = size, size[1:]
        for norm in ("ln_1", "ln_2"):
            shapes[f"{at}.{norm}.weight"] = shapes[f"{at}.{norm}.bias"] = (hidden,)
    shapes[f"{prefix}ln_f.weight"] = shapes[f"{prefix}ln_f.bias"] = (hidden,)
    return shapes


def _arrange(config: DecoderConfig, prefix: str, tensors: Tensors) -> Tensors:
    """Its linear layers hold a row an input feature; ours a row an output feature."""
    turned = {f"{prefix}h.{i}.{name}.weight" for i in range(config.layers) for name in _CONVOLUTIONS}
    return {name: t.t().contiguous() if name in turned else t for name, t in tensors.items()}


GPT2 = DecoderFamily(
    model_types=("gpt2",),
    classes=("GPT2LMHeadModel",),
    prefix="transformer.",
    names={
        "word": "wte",
        "position": "wpe",
        "qkv": "h.{i}.attn.c_attn",
        "attention_output": "h.{i}.attn.c_proj",
        "attention_norm": "h.{i}.ln_1",
        "up": "h.{i}.mlp.c_fc",
        "down": "h.{i}.mlp.c_proj",
        "output_norm": "h.{i}.ln_2",
        "last_norm": "ln_f",
    },
    head="lm_head",
    read=_read,
    shapes=_shapes,
    arrange=_arrange,
    ignored=("h.{i}.attn.bias", "h.{i}.attn.masked_bias"),
)
