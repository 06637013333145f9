"""The Gelu operator: declaration, reference, kernels, cases."""
