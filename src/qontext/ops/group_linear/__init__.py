"""GroupLinear: a linear layer with weights of four bits."""
