"""All families of encoders, and all tasks."""

from .albert import ALBERT
from .bert import BERT
from .distilbert import DISTILBERT
from .electra import ELECTRA
from .family import Family
from .mpnet import MPNET
from .roberta import ROBERTA

FAMILIES: tuple[Family, ...] = (BERT, ROBERTA, DISTILBERT, ELECTRA, ALBERT, MPNET)
BY_TYPE: dict[str, Family] = {t: f for f in FAMILIES for t in f.model_types}
TASKS = ("fill-mask", "classify", "token-classify", "answer", "embed", "generate", "encode")
