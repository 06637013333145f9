"""Reports: explain as data and text."""

from .explain import Explanation, explain

__all__ = ["Explanation", "explain"]
