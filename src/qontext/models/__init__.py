"""Network definitions made of layers."""
