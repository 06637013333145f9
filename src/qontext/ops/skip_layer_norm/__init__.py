"""The SkipLayerNorm operator: declaration, reference, kernels, cases."""
