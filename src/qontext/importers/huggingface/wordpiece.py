"""A BERT tokenizer from vocab.txt alone, equal to the one Hugging Face makes from it."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ...errors import TokenizerError

MAX_VOCABULARY_BYTES = 64 << 20


def tokenizer_from_vocabulary(path: Path, config: dict[str, Any]) -> str:
    """The text of a tokenizer.json.

    Args:
        path: vocab.txt, one piece a line.
        config: tokenizer_config.json: do_lower_case, strip_accents, tokenize_chinese_chars, special tokens.
    """
    if path.stat().st_size > MAX_VOCABULARY_BYTES:
        raise TokenizerError(f"{path.name} has {path.stat().st_size} bytes, at most {MAX_VOCABULARY_BYTES} are allowed")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path.name} is not UTF-8: {error}") from error
    if lines and lines[-1] == "":
        lines.pop()
    pieces = {line.rstrip("\r"): i for i, line in enumerate(lines)}
    names = {k: _token(config.get(f"{k}_token"), f"[{k.upper()}]") for k in ("unk", "sep", "pad", "cls", "mask")}
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
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, pieces[cls]), (sep, pieces[sep])],
    )
    tokenizer.add_special_tokens(list(names.values()))
    return tokenizer.to_str()


def _token(value: Any, default: str) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else default
