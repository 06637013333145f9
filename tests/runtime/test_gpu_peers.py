"""Peers and measures of the GPU bench, as far as they need no GPU."""

import pytest
import torch
import transformers as tf

from qontext.benchmark.gpu_onnxruntime import OnnxRuntimeCuda, _write
from qontext.benchmark.throughput import covered, short_texts
from qontext.errors import DeviceError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = tf.BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, attn_implementation="sdpa"
    )
    return tf.BertModel(config, add_pooling_layer=False).eval()


@pytest.mark.filterwarnings("ignore")
def test_the_peer_onnxruntime_is_fused_whole(model, tmp_path):
    counts = _write(model, tmp_path / "plain.onnx", tmp_path / "fused.onnx")
    assert counts["EmbedLayerNormalization"] == 1
    assert counts["Attention"] == counts["BiasGelu"] == 2
    assert counts["SkipLayerNormalization"] == 4
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_onnxruntime_without_cuda_is_refused(model, tmp_path):
    with pytest.raises(DeviceError, match="no CUDAExecutionProvider; install onnxruntime-gpu"):
        OnnxRuntimeCuda(model, tmp_path)


def test_time_covered_by_kernels_counts_overlaps_once():
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
    assert covered([]) == 0


def test_texts_are_of_the_lengths_that_are_stated():
    texts = short_texts(200, ["a", "b", "c"])
    counts = {len(t.split()) for t in texts}
    assert min(counts) == 4 and max(counts) == 24
    assert texts == short_texts(200, ["a", "b", "c"]) != short_texts(200, ["a", "b", "c"], seed=1)
