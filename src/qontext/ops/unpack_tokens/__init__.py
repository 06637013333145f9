"""The UnpackTokens operator: declaration, reference, kernels, cases."""
