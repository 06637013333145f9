"""All families, and the architectures of config.json by task."""

from .albert import ALBERT
from .bert import BERT
from .distilbert import DISTILBERT
from .electra import ELECTRA
from .family import Family
from .mpnet import MPNET
from .roberta import ROBERTA

FAMILIES: tuple[Family, ...] = (BERT, ROBERTA, DISTILBERT, ELECTRA, ALBERT, MPNET)
BY_TYPE: dict[str, Family] = {t: f for f in FAMILIES for t in f.model_types}

TASK_OF_SUFFIX = {
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "ForSequenceClassification": "classify",
    "ForTokenClassification": "token-classify",
    "ForQuestionAnswering": "answer",
    "Model": "encode",
}
TASKS = ("fill-mask", "classify", "token-classify", "answer", "embed", "encode")
