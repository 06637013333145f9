"""The PackTokens operator: declaration, reference, kernels, cases."""
