"""LLaMA, and the families that share its network: Mistral, Qwen2."""

from collections.abc import Mapping
from typing import Any

import torch

from ...models.decoder_config import DecoderConfig
from .config import ACTIVATIONS
from .decoder_family import DecoderFamily, Reader, Shapes, Tensors

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def _read(raw: Mapping[str, Any]) -> tuple[DecoderConfig | None, list[str]]:
    reader = Reader(raw)
    hidden, heads = reader.whole("hidden_size", 4096), reader.whole("num_attention_heads", 32)
    kv_heads = reader.whole("num_key_value_heads", heads)
    size = reader.whole("head_dim", hidden // heads if hidden >= heads else 1)
    activation = raw.get("hidden_act", "silu")
    if activation not in ACTIVATIONS:
        reader.problems.append(f"hidden_act is {str(activation)[:60]!r}; known are {', '.join(ACTIVATIONS)}")
    if heads % kv_heads:
        reader.problems.append(f"num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}")
    positions = reader.whole("max_position_embeddings", 2048)
    rotary = _rotary(reader, size, positions)
    window = 0
    if raw.get("sliding_window") is not None and raw.get("use_sliding_window", True):
        window = reader.whole("sliding_window")
        kinds = set(raw.get("layer_types") or ["sliding_attention"])
        if kinds != {"sliding_attention"}:
            reader.problems.append("layer_types mixes layers with and without a window, which is not supported")
    config = DecoderConfig(
        vocabulary=reader.whole("vocab_size", 32000),
        hidden=hidden,
        layers=reader.whole("num_hidden_layers", 32, most=10_000),
        heads=heads,
        kv_heads=kv_heads,
        head_size=size,
        inner=reader.whole("intermediate_size", 11008),
        positions=positions,
        norm="rms",
        epsilon=reader.number("rms_norm_eps", 1e-6),
        activation=ACTIVATIONS.get(activation, "silu"),
        gated=True,
        rotary=rotary,
        window=window,
        tied=reader.flag("tie_word_embeddings", False),
    )
    return config, reader.problems


def _rotary(reader: Reader, size: int, positions: int) -> dict[str, Any]:
    """Attributes of GptAttention from rope_theta and rope_scaling, or from rope_parameters that hold both."""
    raw = reader.raw
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        reader.problems.append(f"rope_scaling is a {type(scaling).__name__}, expected an object")
        scaling = {}
    base = reader.number("rope_theta", 10000.0, 1.0, scaling if "rope_theta" in scaling else None)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    share = reader.number("partial_rotary_factor", 1.0, 0.0, scaling if "partial_rotary_factor" in scaling else None)
    found: dict[str, Any] = {"position": "rope_gpt_neox", "rotary_dim": int(size * share), "rotary_base": base}
    if kind == "default":
        return found
    if kind not in ("linear", "dynamic", "yarn", "llama3"):
        reader.problems.append(f"rope_type is {str(kind)[:60]!r}; known are default, linear, dynamic, yarn, llama3")
        return found
    trained = scaling.get("original_max_position_embeddings") or positions
    found |= {
        "rotary_scaling": kind,
        "rotary_factor": reader.number("factor", 1.0, 0.0, scaling),
        "rotary_max_positions": int(trained) if isinstance(trained, int) else positions,
    }
    if kind == "llama3":
        found["rotary_low"] = reader.number("low_freq_factor", 1.0, 0.0, scaling)
        found["rotary_high"] = reader.number("high_freq_factor", 4.0, 0.0, scaling)
    if kind == "yarn":
        if scaling.get("mscale") or scaling.get("mscale_all_dim"):
            reader.problems.append("rope_scaling has mscale, which is not supported; give attention_factor")
        found["rotary_low"] = reader.number("beta_slow", 1.0, 0.0, scaling)
        found["rotary_high"] = reader.number("beta_fast", 32.0, 0.0, scaling)
        found["rotary_rounded"] = bool(scaling.get("truncate", True))
        if scaling.get("attention_factor") is not None:
            found["rotary_magnitude"] = reader.number("attention_factor", 1.0, 0.0, scaling)
    return found


def _shapes(config: DecoderConfig, prefix: str, tensors: Mapping[str, torch.Tensor]) -> Shapes:
    """Which layers have biases the checkpoint says: every family of this network has its own habit."""
    hidden, inner, size = config.hidden, config.inner, config.head_size
    query, keys = config.heads * size, config.kv_heads * size
    shapes: Shapes = {f"{prefix}norm.weight": (hidden,)}
    for i in range(config.layers):
        at = f"{prefix}layers.{i}"
        sizes = {
            "self_attn.q_proj": (query, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, query),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        for name, shape in sizes.items():
            shapes[f"{at}.{name}.weight"] = shape
            if f"{at}.{name}.bias" in tensors:
                shapes[f"{at}.{name}.bias"] = shape[:1]
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{norm}.weight"] = (hidden,)
    return shapes


def _arrange(config: DecoderConfig, prefix: str, tensors: Tensors) -> Tensors:
    """Query, key and value projections become one."""
    found = dict(tensors)
    for i in range(config.layers):
        at = f"{prefix}layers.{i}.self_attn"
        for kind in ("weight", "bias"):
            parts = [found.pop(f"{at}.{name}.{kind}", None) for name in _PROJECTIONS]
            there = [p for p in parts if p is not None]
            if len(there) == len(parts):
                found[f"{at}.qkv_proj.{kind}"] = torch.cat(there)
    return found


LLAMA = DecoderFamily(
    model_types=("llama", "mistral", "qwen2"),
    classes=("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"),
    prefix="model.",
    names={
        "word": "embed_tokens",
        "qkv": "layers.{i}.self_attn.qkv_proj",
        "attention_output": "layers.{i}.self_attn.o_proj",
        "attention_norm": "layers.{i}.input_layernorm",
        "gate": "layers.{i}.mlp.gate_proj",
        "up": "layers.{i}.mlp.up_proj",
        "down": "layers.{i}.mlp.down_proj",
        "output_norm": "layers.{i}.post_attention_layernorm",
        "last_norm": "norm",
    },
    head="lm_head",
    read=_read,
    shapes=_shapes,
    arrange=_arrange,
    ignored=("layers.{i}.self_attn.rotary_emb.inv_freq",),
)
