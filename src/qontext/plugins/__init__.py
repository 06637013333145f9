"""What the author of an operator needs: the declaration, what kernels see of a call, and a check for unit tests."""

from ..graph.dims import Dim, Shape
from ..ops.call import Bound, Call, Cost, Device, Kernel, Operand, Tensors
from ..ops.declare import REQUIRED, Attribute, Case, Op, Param
from .check import Checked, check_operator

__all__ = [
    "REQUIRED",
    "Attribute",
    "Bound",
    "Call",
    "Case",
    "Checked",
    "Cost",
    "Device",
    "Dim",
    "Kernel",
    "Op",
    "Operand",
    "Param",
    "Shape",
    "Tensors",
    "check_operator",
]
