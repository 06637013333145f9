"""The QKVToContext operator: declaration, reference, kernels, cases."""
