"""Families of operators and their colours, the same in tables, pictures and plots."""

FAMILIES = (
    ("attention", ("Attention", "QKVToContext", "GptAttention", "Softmax", "PagedAttention")),
    ("linear", ("Linear", "MatMul", "Gemm", "QuantLinear", "MatMulInteger")),
    ("norm", ("LayerNorm", "SkipLayerNorm", "RMSNorm", "GroupNorm", "LayerNormalization", "SkipRMSNorm")),
    ("embedding", ("EmbedLayerNorm", "Gather", "RotaryEmbedding")),
    ("activation", ("Gelu", "Relu", "Tanh", "Sigmoid", "Erf", "GatedActivation", "Swish")),
    ("packing", ("PackIndex", "PackTokens", "UnpackTokens", "FirstTokens")),
    ("quantise", ("Quantize", "Dequantize", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")),
)
OTHER = "other"

# For light pages; the page itself has a second set for dark ones (`page.css`), by the same names.
FILL = {
    "attention": "#f6c6a8",
    "linear": "#b9d3f5",
    "norm": "#c6e6c0",
    "embedding": "#e2ccf3",
    "activation": "#f5dc95",
    "packing": "#d5dbe2",
    "quantise": "#f4bfd3",
    OTHER: "#e9ecef",
}
_OF = {op: family for family, ops in FAMILIES for op in ops}


def family_of(op: str) -> str:
    """The family of an operator, by its name."""
    found = _OF.get(op)
    if found is not None:
        return found
    for ending, family in (
        ("Attention", "attention"),
        ("Linear", "linear"),
        ("Norm", "norm"),
        ("Normalization", "norm"),
        ("Embedding", "embedding"),
    ):
        if op.endswith(ending):
            return family
    return OTHER
