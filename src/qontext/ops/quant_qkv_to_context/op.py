"""Declaration of QuantQKVToContext: from a fused projection to the context, with products of eight bits."""

from ...dtypes import FLOATS
from ..declare import Attribute, Op, Param
from ..eight_bits import KINDS
from ..qkv_to_context.op import OP as FLOAT_OP
from ..qkv_to_context.rules import cost
from .body import body
from .cases import cases
from .cpu import KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference
from .rules import check, infer

_CONTEXT = "|".join((*FLOATS, *KINDS))
_QKV = Param(
    "qkv",
    "...",
    "X",
    doc="the fused projection as 'layout' says: floats that the operator turns into eight bits, or eight bits",
)

OP = Op(
    name="QuantQKVToContext",
    doc="Attention from a fused projection with Q, K, V and probabilities in eight bits: int8, whose products are "
    "summed exactly, or float8_e4m3.",
    inputs=(
        _QKV,
        *FLOAT_OP.inputs[1:7],
        Param(
            "qkv_scale",
            "|three",
            "float32",
            optional=True,
            doc="Q, K, V = held * scale, one for all or one each; without it every row of Q and K gets its own from "
            "its largest magnitude, and V one for each sequence and head",
        ),
        Param(
            "context_scale",
            "",
            "float32",
            optional=True,
            doc="the context is in eight bits: context = held * context_scale",
        ),
    ),
    outputs=(
        Param(
            "context",
            "...",
            _CONTEXT,
            doc="as QKVToContext; in eight bits with 'context_scale', float32 from eight bits without it",
        ),
    ),
    attributes=(
        *(attribute for attribute in FLOAT_OP.attributes if attribute.name != "eight_bits"),
        Attribute("eight_bits", str, "int8", KINDS, doc="what Q, K, V, probabilities and such a context are held in"),
        Attribute(
            "dq_probs",
            float,
            0.0,
            doc="int8: probability = byte * dq_probs, 1/127 in TensorRT; 0: the largest of each row becomes 127 and "
            "its bytes add up to 1, so that rows over many keys do not vanish",
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
    types={"X": (*FLOATS, *KINDS)},
    source="https://github.com/NVIDIA/TensorRT/tree/main/plugin/bertQKVToContextPlugin",
)
