"""The FirstTokens operator: declaration, reference, kernels, cases."""
