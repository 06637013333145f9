"""The RotaryEmbedding operator: declaration, reference, kernels, cases."""
