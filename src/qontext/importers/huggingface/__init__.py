"""The Hugging Face door: a folder with config.json, safetensors and tokenizer.json becomes a Model."""

from .door import import_folder

__all__ = ["import_folder"]
