"""The homework's calibrator: reads texts in batches, keeps its result in a cache. qontext finds the scales."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from bert_folder import encode, tokenizer_of

import qontext as qx

CALIBRATOR_DATA = str(Path(__file__).resolve().parent / "calibrator_data.txt")
NAMES = ("input_ids", "token_type_ids", "position_ids")


class BertCalibrator:
    """Batches of texts for calibration, with TensorRT's method names.

    Args:
        data_txt: one text a line. bert_path: folder of the model, for its tokenizer.
        cache_file: where the result is kept; while it is there, no text is read.
        batch_size: texts a batch, of equal length (the homework has no mask); max_seq_length: tokens a text is cut to.
        num_inputs: texts to read.
    """

    def __init__(
        self,
        data_txt: str,
        bert_path: str,
        cache_file: str,
        batch_size: int = 1,
        max_seq_length: int = 200,
        num_inputs: int = 100,
        vocab_file: str | None = None,
    ):
        self.cache_file = cache_file
        self.batch_size = batch_size
        self.max_seq_length = max_seq_length
        self.num_inputs = num_inputs
        self.data_txt = data_txt
        self.tokenizer = tokenizer_of(bert_path, vocab_file)
        self.current = self._batches()

    def free(self) -> None:
        """Nothing is held on a device."""

    def get_batch_size(self) -> int:
        return self.batch_size

    def get_batch(self, names: list[str]) -> list[np.ndarray] | None:
        """The arrays of the next batch in the order of the names; None after the last one."""
        batch = next(self.current, None)
        return None if batch is None else [batch[name] for name in names]

    def read_calibration_cache(self) -> bytes | None:
        path = Path(self.cache_file)
        return path.read_bytes() if path.is_file() else None

    def write_calibration_cache(self, cache: bytes) -> None:
        Path(self.cache_file).write_bytes(cache)

    def get_quantile(self) -> float:
        """How much of the values a range holds."""
        return 0.9999

    def get_regression_cutoff(self) -> float:
        """TensorRT's legacy calibrator asks for it; a percentile has no use for it."""
        return 1.0

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """All batches, as `qontext.calibrate` reads them: through `get_batch`."""
        while (arrays := self.get_batch(list(NAMES))) is not None:
            yield dict(zip(NAMES, arrays, strict=True))

    def _batches(self) -> Iterator[dict[str, np.ndarray]]:
        lines = [line for line in Path(self.data_txt).read_text(encoding="utf-8").splitlines() if line.strip()]
        made = [encode(self.tokenizer, line)[1] for line in lines[: self.num_inputs]]
        cut = [[a[:, : self.max_seq_length] for a in arrays] for arrays in made]
        cut.sort(key=lambda arrays: arrays[0].shape[1])
        batch: list[list[np.ndarray]] = []
        for arrays in cut:
            if batch and (len(batch) == self.batch_size or batch[0][0].shape != arrays[0].shape):
                yield _joined(batch)
                batch = []
            batch.append(arrays)
        if batch:
            yield _joined(batch)


def _joined(batch: list[list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([arrays[i] for arrays in batch]) for i, name in enumerate(NAMES)}


def calibrated(model: qx.Model, calibrator: BertCalibrator):
    """Static scales of a model by the calibrator's quantile, from its cache where there is one."""
    percentile = 100 * calibrator.get_quantile()
    return qx.calibrate(model, calibrator.batches, "percentile", percentile, cache=calibrator.cache_file)
