"""The PackIndex operator: declaration, reference, kernels, cases."""
