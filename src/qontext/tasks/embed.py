"""embed: one vector a text."""

from collections.abc import Sequence

import numpy as np

from .pipeline import Pipeline, Progress, as_list


class Embed(Pipeline):
    """Called with one text or a list, returns a numpy array `[n, E]`, float32.

    Pooling and normalisation are part of the graph (output `sentence_embedding`) as the sentence-transformers files
    say; a bare encoder is mean-pooled here.
    """

    task = "embed"
    outputs = ("sentence_embedding", "last_hidden_state")

    def __call__(
        self, texts: str | Sequence[str], truncate: bool = True, progress: Progress | None = None
    ) -> np.ndarray:
        """Embeddings of the texts, in their order.

        Args:
            texts: one text or several.
            truncate: cut texts at the model's limit, as sentence encoders are trained to be used; False refuses them.
            progress: called with the number of texts done.
        """
        items, _ = as_list(texts, self.task)
        encodings = self.tokenizer.encode(items, max_length=self.limit if truncate else None)
        self.check_length(encodings, truncate)
        if not encodings:
            return np.zeros((0, int(self.engine.config.get("hidden_size", 0))), np.float32)
        if "sentence_embedding" in self.engine.output_names:
            return np.stack(self.run_batches(encodings, "sentence_embedding", progress))
        hidden = self.run_batches(encodings, "last_hidden_state", progress)
        return np.stack([h.mean(0) for h in hidden])
