"""The Linear operator: declaration, reference, kernels, cases."""
