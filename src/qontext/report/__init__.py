"""Reports: explain as data, text and a page; pictures; comparisons."""

from .explain import Explanation, explain
from .failure import Failure, failure
from .picture import dot, svg

__all__ = ["Explanation", "Failure", "dot", "explain", "failure", "svg"]
