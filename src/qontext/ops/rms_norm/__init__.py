"""The RMSNorm operator: declaration, reference, kernels, cases."""
