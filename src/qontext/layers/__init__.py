"""Layers made of builder calls."""
