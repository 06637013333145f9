"""All pipelines by task."""

from .answer import Answer
from .classify import Classify, TokenClassify
from .embed import Embed
from .fill_mask import FillMask
from .pipeline import Pipeline

PIPELINES: dict[str, type[Pipeline]] = {p.task: p for p in (FillMask, Embed, Classify, TokenClassify, Answer)}
