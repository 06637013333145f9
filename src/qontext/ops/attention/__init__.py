"""The Attention operator: declaration, reference, kernels, cases."""
