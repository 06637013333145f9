"""The EmbedLayerNorm operator: declaration, reference, kernels, cases."""
