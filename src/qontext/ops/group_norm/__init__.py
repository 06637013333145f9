"""The GroupNorm operator: declaration, reference, kernels, cases."""
