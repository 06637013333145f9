"""Tasks: texts in, answers out."""

from .pipeline import Pipeline, pipeline

__all__ = ["Pipeline", "pipeline"]
