"""GptAttention: attention of GPT-like models over a cache: declaration, reference, kernels, cases."""
