"""qontext's own CPU kernels: a small C++ library with a plain C interface, called through ctypes.

It is built at install and optional: `available()` and `status()` say whether it is here, and why not. Kernels write
into tensors that the caller gives. Importing this package loads nothing; the first call does.
"""

from qontext.native.attention import attention, attention_fused
from qontext.native.elementwise import bias_act
from qontext.native.library import ISAS, Status, available, isa, set_isa, status
from qontext.native.norm import embed_layer_norm, skip_layer_norm
from qontext.native.process import page_faults, steady_allocator
from qontext.native.rows import gather_rows, pack_index, scatter_rows

__all__ = [
    "ISAS",
    "Status",
    "attention",
    "attention_fused",
    "available",
    "bias_act",
    "embed_layer_norm",
    "gather_rows",
    "isa",
    "pack_index",
    "page_faults",
    "scatter_rows",
    "set_isa",
    "skip_layer_norm",
    "status",
    "steady_allocator",
]
