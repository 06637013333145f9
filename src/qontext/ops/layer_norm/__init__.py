"""The LayerNorm operator: declaration, reference, kernels, cases."""
