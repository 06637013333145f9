"""What a run tells attention about lengths and caches, with the rules of what must be there.

`problems(...)` gives one sentence for every broken rule, `check(...)` raises them together, `is_valid(...)` says yes or
no as TensorRT-LLM 0.5.0 does. (There `is_valid_cross_attn` never says yes; here it does when the rules hold.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError, all_problems

Tensor = Any  # torch.Tensor, or a value of a network under construction


@dataclass
class AttentionParams:
    """Lengths of a batch of R sequences.

    sequence_length:      int32 [R], tokens of each sequence after this step
    context_lengths:      int32 [R], tokens of each prompt
    host_context_lengths: the same on the host; needed for packed input
    max_context_length:   the longest prompt, a number
    host_request_types:   int32 [R] on the host, 0 for the context phase, 1 for the generation phase
    encoder_input_lengths: int32 [R], tokens of each encoder output (cross attention)
    encoder_max_input_length: the longest of them, a number or a tensor of that length
    """

    sequence_length: Tensor = None
    context_lengths: Tensor = None
    host_context_lengths: Tensor = None
    max_context_length: int | None = None
    host_request_types: Tensor = None
    encoder_input_lengths: Tensor = None
    encoder_max_input_length: Tensor = None

    def problems(
        self, gpt_attention_plugin: bool, remove_input_padding: bool, do_cross_attention: bool = False
    ) -> list[str]:
        """One sentence for every rule that is broken."""
        found = []
        if gpt_attention_plugin:
            found += [
                f"{name} is None; fused attention needs {what}"
                for name, what in (
                    ("sequence_length", "the tokens of each sequence after this step, int32 [R]"),
                    ("context_lengths", "the tokens of each prompt, int32 [R]"),
                    ("host_request_types", "0 (context) or 1 (generation) for each sequence, int32 [R] on the host"),
                    ("max_context_length", "the longest prompt as a number"),
                )
                if getattr(self, name) is None
            ]
        if remove_input_padding and not gpt_attention_plugin:
            found.append("remove_input_padding is True, but only fused attention takes packed input")
        if remove_input_padding and self.host_context_lengths is None:
            found.append("host_context_lengths is None; packed input needs the tokens of each prompt on the host")
        if self.max_context_length is not None and (
            not isinstance(self.max_context_length, int) or isinstance(self.max_context_length, bool)
        ):
            kind = type(self.max_context_length).__name__
            found.append(f"max_context_length is a {kind}, it has to be a number (int)")
        elif self.max_context_length is not None and self.max_context_length < 1:
            found.append(f"max_context_length is {self.max_context_length}, it has to be at least 1")
        if do_cross_attention:
            found += self._cross_problems()
        return found

    def _cross_problems(self) -> list[str]:
        return [
            f"{name} is None; cross attention needs {what}"
            for name, what in (
                ("encoder_input_lengths", "the tokens of each encoder output, int32 [R]"),
                ("encoder_max_input_length", "the longest encoder output"),
            )
            if getattr(self, name) is None
        ]

    def is_valid_cross_attn(self, do_cross_attention: bool) -> bool:
        """Whether everything that cross attention needs is there."""
        return not do_cross_attention or not self._cross_problems()

    def is_valid(self, gpt_attention_plugin: bool, remove_input_padding: bool) -> bool:
        """Whether everything is there that the chosen path needs."""
        return not self.problems(gpt_attention_plugin, remove_input_padding)

    def check(self, gpt_attention_plugin: bool, remove_input_padding: bool, do_cross_attention: bool = False) -> None:
        """Raises ArgumentError with every broken rule."""
        found = self.problems(gpt_attention_plugin, remove_input_padding, do_cross_attention)
        if found:
            raise ArgumentError(all_problems("attention_params", found))


@dataclass
class KeyValueCacheParams:
    """Caches of keys and values.

    past_key_value:      a cache for each layer, contiguous [R, 2, Nkv, P, D] or paged [pages, 2, Nkv, page, D]. Of a
                         layer with cross attention the first is its own, the second that of the encoder
    host_past_key_value_lengths: int32 [R] on the host, tokens in the cache before this step
    kv_cache_block_pointers: a table of page numbers for each layer, int32 [R, pages of a sequence]; paged caches only
    cache_indirection:   int32 [B, beams, P], which beam's cache holds each position; None without beams
    past_key_value_length: tokens in the cache before this step, a number (kept for callers; unused)
    """

    past_key_value: Sequence[Tensor] | None = None
    host_past_key_value_lengths: Tensor = None
    kv_cache_block_pointers: Sequence[Tensor] | None = None
    cache_indirection: Tensor = None
    past_key_value_length: Tensor = None

    def get_first_past_key_value(self) -> Tensor:
        return None if self.past_key_value is None else self.past_key_value[0]

    def get_first_kv_cache_block_pointers(self) -> Tensor:
        return None if self.kv_cache_block_pointers is None else self.kv_cache_block_pointers[0]

    def problems(self, gpt_attention_plugin: bool, beam_width: int = 1) -> list[str]:
        """One sentence for every rule that is broken."""
        found = []
        for name in ("past_key_value", "kv_cache_block_pointers"):
            given = getattr(self, name)
            if given is not None and (not isinstance(given, Sequence) or not given):
                found.append(f"{name} is {_shown(given)}, it has to be a list with a tensor for each layer")
        if self.kv_cache_block_pointers is not None and self.past_key_value is None:
            found.append("kv_cache_block_pointers are given, but past_key_value is None; pages need their pool")
        if not gpt_attention_plugin:
            if self.kv_cache_block_pointers is not None:
                found.append("kv_cache_block_pointers are given, but only fused attention reads paged caches")
            if self.cache_indirection is not None:
                found.append("cache_indirection is given, but only fused attention reads through it")
            return found
        if self.host_past_key_value_lengths is None:
            found.append(
                "host_past_key_value_lengths is None; fused attention needs the tokens in the cache before this step"
            )
        if self.cache_indirection is None and beam_width > 1:
            found.append(f"cache_indirection is None, but there are {beam_width} beams; it says whose cache they read")
        return found

    def is_valid(self, gpt_attention_plugin: bool, beam_width: int = 1) -> bool:
        """Whether everything is there that the chosen path needs."""
        return not self.problems(gpt_attention_plugin, beam_width)

    def check(self, gpt_attention_plugin: bool, beam_width: int = 1) -> None:
        """Raises ArgumentError with every broken rule."""
        found = self.problems(gpt_attention_plugin, beam_width)
        if found:
            raise ArgumentError(all_problems("kv_cache_params", found))


def _shown(given: object) -> str:
    return "an empty list" if isinstance(given, Sequence) else f"a {type(given).__name__}"
