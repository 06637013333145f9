"""The standard ONNX operators as PyTorch implementations; `catalogue.lookup(op_type)` finds one."""
