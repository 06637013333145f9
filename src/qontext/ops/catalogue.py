"""All declared operators, in the order of the documentation."""

from .attention.op import OP as ATTENTION
from .declare import Op
from .embed_layer_norm.op import OP as EMBED_LAYER_NORM
from .first_tokens.op import OP as FIRST_TOKENS
from .gelu.op import OP as GELU
from .gpt_attention.op import OP as GPT_ATTENTION
from .group_linear.op import OP as GROUP_LINEAR
from .group_norm.op import OP as GROUP_NORM
from .layer_norm.op import OP as LAYER_NORM
from .linear.op import OP as LINEAR
from .linear_skip_layer_norm.op import OP as LINEAR_SKIP_LAYER_NORM
from .pack_index.op import OP as PACK_INDEX
from .pack_tokens.op import OP as PACK_TOKENS
from .qkv_to_context.op import OP as QKV_TO_CONTEXT
from .quant_linear.op import OP as QUANT_LINEAR
from .quant_qkv_to_context.op import OP as QUANT_QKV_TO_CONTEXT
from .rms_norm.op import OP as RMS_NORM
from .rotary_embedding.op import OP as ROTARY_EMBEDDING
from .skip_layer_norm.op import OP as SKIP_LAYER_NORM
from .unpack_tokens.op import OP as UNPACK_TOKENS

OPS: tuple[Op, ...] = (
    LINEAR,
    QUANT_LINEAR,
    GROUP_LINEAR,
    LAYER_NORM,
    RMS_NORM,
    GROUP_NORM,
    SKIP_LAYER_NORM,
    LINEAR_SKIP_LAYER_NORM,
    EMBED_LAYER_NORM,
    GELU,
    QKV_TO_CONTEXT,
    QUANT_QKV_TO_CONTEXT,
    ATTENTION,
    GPT_ATTENTION,
    ROTARY_EMBEDDING,
    PACK_INDEX,
    PACK_TOKENS,
    UNPACK_TOKENS,
    FIRST_TOKENS,
)
BY_NAME: dict[str, Op] = {op.name: op for op in OPS}
