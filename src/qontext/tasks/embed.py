"""embed: one vector a text."""

from collections.abc import Sequence

import numpy as np

from ..errors import ArgumentError, UnsupportedModelError
from .pipeline import Pipeline, Progress, as_list


class Embed(Pipeline):
    """Called with one text or a list, returns a numpy array `[n, E]`, float32.

    Pooling and normalisation are part of the graph (output `sentence_embedding`) as the sentence-transformers files
    say; a bare encoder is mean-pooled here.
    """

    task = "embed"
    outputs = ("sentence_embedding", "last_hidden_state")

    @property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name, from the sentence-transformers files."""
        return dict(self.engine.config.get("prompts") or {})

    @property
    def default_prompt(self) -> str | None:
        """The name of the prompt that is used unless another is asked for."""
        return self.engine.config.get("default_prompt")

    def __call__(
        self,
        texts: str | Sequence[str],
        truncate: bool = True,
        progress: Progress | None = None,
        prompt: str | None = None,
    ) -> np.ndarray:
        """Embeddings of the texts, in their order.

        Args:
            texts: one text or several.
            truncate: cut texts at the model's limit, as sentence encoders are trained to be used; False refuses them.
            progress: called with the number of texts done.
            prompt: name of one of the model's prompts (`prompts`), whose words are put before each text; None takes
                the model's default, if it has one, and "" none.
        Raises:
            ArgumentError: a prompt that the model does not have.
            UnsupportedModelError: a prompt whose tokens the model leaves out of its pooling.
        """
        words = self._words(prompt)
        items = [words + text for text in as_list(texts, self.task)[0]]
        if not items:
            return np.zeros((0, int(self.engine.config.get("hidden_size", 0))), np.float32)
        pieces = self.tokens(items, truncate)
        if "sentence_embedding" in self.engine.output_names:
            return self.run_rows(pieces, "sentence_embedding", len(items), progress)
        return np.stack([h.mean(0) for h in self.run_batches(pieces, "last_hidden_state", progress)])

    def _words(self, prompt: str | None) -> str:
        name = self.default_prompt if prompt is None else prompt
        if not name:
            return ""
        if name not in self.prompts:
            known = ", ".join(map(repr, self.prompts)) or "no prompts"
            raise ArgumentError(f"embed: {self.engine.name} has no prompt {name!r}; it has {known}. Pass '' for none")
        words = self.prompts[name]
        if words and not self.engine.config.get("prompts_pooled", True):
            raise UnsupportedModelError(
                f"embed: {self.engine.name} leaves the tokens of the prompt {name!r} out of its pooling, which qontext "
                "does not; pass prompt='' for none, or import with task='encode' and pool yourself"
            )
        return words
