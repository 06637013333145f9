"""A tokenizer from vocab.txt alone, equal to the one Hugging Face makes from it: BERT's kind, or MPNet's."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ...errors import TokenizerError

MAX_VOCABULARY_BYTES = 64 << 20
_BERT = {k: f"[{k.upper()}]" for k in ("unk", "sep", "pad", "cls", "mask")}
_MPNET = {"unk": "[UNK]", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"}
_SINGLE = "{cls}:0 $A:0 {sep}:0"
_PAIRS = {"bert": "{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1", "mpnet": "{cls}:0 $A:0 {sep}:0 {sep}:0 $B:0 {sep}:0"}
# Families whose own tokenizer has no vocab.txt: there it says nothing about how texts and pairs are framed.
_OTHERS = ("roberta", "xlm-roberta")


def tokenizer_from_vocabulary(path: Path, config: dict[str, Any], model_type: str = "bert") -> str:
    """The text of a tokenizer.json.

    Args:
        path: vocab.txt, one piece a line.
        config: tokenizer_config.json: tokenizer_class, do_lower_case, strip_accents, tokenize_chinese_chars, special
            tokens.
        model_type: of config.json, where there is no tokenizer_class.
    Raises:
        TokenizerError: a vocabulary that is damaged, lacks special pieces, or belongs to another kind of tokenizer.
    """
    kind = _kind(path, config, model_type)
    if path.stat().st_size > MAX_VOCABULARY_BYTES:
        raise TokenizerError(f"{path.name} has {path.stat().st_size} bytes, at most {MAX_VOCABULARY_BYTES} are allowed")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path.name} is not UTF-8: {error}") from error
    if lines and lines[-1] == "":
        lines.pop()
    pieces = {line.rstrip("\r"): i for i, line in enumerate(lines)}
    usual = _MPNET if kind == "mpnet" else _BERT
    names = {k: _token(config.get(f"{k}_token"), token) for k, token in usual.items()}
    missing = [n for n in names.values() if n not in pieces]
    if missing:
        raise TokenizerError(f"{path.name} lacks the special pieces {', '.join(missing)}")
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token=names["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
        strip_accents=config.get("strip_accents"),
        lowercase=bool(config.get("do_lower_case", True)),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    cls, sep = names["cls"], names["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=_SINGLE.format(cls=cls, sep=sep).split(),
        pair=_PAIRS[kind].format(cls=cls, sep=sep).split(),
        special_tokens=[(cls, pieces[cls]), (sep, pieces[sep])],
    )
    # MPNet's mask takes the space before it along.
    mask = AddedToken(names["mask"], lstrip=kind == "mpnet", normalized=False, special=True)
    tokenizer.add_special_tokens([names["unk"], sep, names["pad"], cls, mask])
    return tokenizer.to_str()


def _kind(path: Path, config: dict[str, Any], model_type: str) -> str:
    """ "bert" or "mpnet"."""
    name = str(config.get("tokenizer_class", "")).removesuffix("Fast")
    if name == "MPNetTokenizer" or (not name and model_type == "mpnet"):
        return "mpnet"
    if model_type in _OTHERS and name != "BertTokenizer":
        raise TokenizerError(
            f"{path.name} is no tokenizer of {model_type}, which does not use one; save tokenizer.json beside "
            "config.json (tokenizer.save_pretrained), or name the tokenizer_class in tokenizer_config.json if it is "
            "BertTokenizer"
        )
    return "bert"


def _token(value: Any, default: str) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default
