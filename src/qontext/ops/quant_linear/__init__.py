"""QuantLinear: a linear layer in eight bits."""
