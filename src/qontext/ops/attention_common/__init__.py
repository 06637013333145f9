"""What QKVToContext and Attention share: layouts, masks, the reference softmax, checks and kernels."""
