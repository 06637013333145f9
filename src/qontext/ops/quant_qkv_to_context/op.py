"""Declaration of QuantQKVToContext: from a fused projection to the context, with products of bytes."""

from ...dtypes import FLOATS
from ..declare import Attribute, Op, Param
from ..qkv_to_context.op import OP as FLOAT_OP
from ..qkv_to_context.rules import cost
from .body import body
from .cases import cases
from .cpu import KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference
from .rules import check, infer

_CONTEXT = "float32|float16|bfloat16|int8"
_QKV = Param(
    "qkv", "...", "X", doc="the fused projection as 'layout' says: floats that the operator turns into bytes, or bytes"
)

OP = Op(
    name="QuantQKVToContext",
    doc="Attention from a fused projection with Q, K, V and probabilities in bytes, and exact sums of their products.",
    inputs=(
        _QKV,
        *FLOAT_OP.inputs[1:7],
        Param(
            "qkv_scale",
            "|three",
            "float32",
            optional=True,
            doc="Q, K, V = byte * scale, one for all or one each; without it every row of Q and K gets its own from "
            "its largest magnitude, and V one for each sequence and head",
        ),
        Param("context_scale", "", "float32", optional=True, doc="the context is int8: context = byte * context_scale"),
    ),
    outputs=(
        Param(
            "context", "...", _CONTEXT, doc="as QKVToContext; int8 with 'context_scale', float32 from bytes without it"
        ),
    ),
    attributes=(
        *(attribute for attribute in FLOAT_OP.attributes if attribute.name != "eight_bits"),
        Attribute(
            "dq_probs",
            float,
            0.0,
            doc="probability = byte * dq_probs, 1/127 in TensorRT; 0: the largest of each row becomes 127 and its "
            "bytes add up to 1, so that rows over many keys do not vanish",
        ),
        Attribute(
            "use_int8_scale_max",
            bool,
            False,
            doc="with 'dq_probs' and 'qkv_scale': exponentials may be taken from the largest logit that bytes can "
            "give, 127^2 times the scales,"
            " instead of each row's largest; done where none can leave float32, so that only "
            "the time changes",
        ),
    ),
    reference=reference,
    kernels=(*KERNELS, *GPU_KERNELS),
    cases=cases,
    infer=infer,
    cost=cost,
    body=body,
    check=check,
    types={"X": (*FLOATS, "int8")},
    source="https://github.com/NVIDIA/TensorRT/tree/main/plugin/bertQKVToContextPlugin",
)
