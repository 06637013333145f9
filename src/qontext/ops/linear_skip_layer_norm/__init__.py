"""The LinearSkipLayerNorm operator: declaration, reference, kernels, cases."""
