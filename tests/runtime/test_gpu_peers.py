"""Peers and measures of the GPU bench, as far as they need no GPU."""

import pytest
import torch
import transformers as tf

from qontext.benchmark.gpu_onnxruntime import OnnxRuntimePeer
from qontext.benchmark.throughput import covered, short_texts
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import DeviceError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = tf.BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, attn_implementation="sdpa"
    )
    return tf.BertModel(config, add_pooling_layer=False).eval()


@pytest.mark.filterwarnings("ignore")
def test_the_peer_onnxruntime_is_fused_whole_and_right(model, tmp_path):
    peer = OnnxRuntimePeer(model, tmp_path, "cpu")
    assert peer.fused["EmbedLayerNormalization"] == 1
    assert peer.fused["Attention"] == peer.fused["BiasGelu"] == 2
    assert peer.fused["SkipLayerNormalization"] == 4
    assert model.config._attn_implementation == "sdpa"
    ids = torch.randint(5, 1000, (3, 20))
    mask = (torch.arange(20) < torch.tensor([20, 7, 1])[:, None]).long()
    for given in (None, mask):
        with torch.no_grad():
            want = model(input_ids=ids, attention_mask=given).last_hidden_state
        real = torch.ones_like(ids).bool() if given is None else given.bool()
        assert relative_rms(peer(ids, given)()[real], want[real]) < BY_NAME["float32"].tolerance


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_onnxruntime_without_cuda_is_refused(model, tmp_path):
    with pytest.raises(DeviceError, match="no CUDAExecutionProvider; install onnxruntime-gpu"):
        OnnxRuntimePeer(model, tmp_path)


def test_time_covered_by_kernels_counts_overlaps_once():
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
    assert covered([]) == 0


def test_texts_are_of_the_lengths_that_are_stated():
    texts = short_texts(200, ["a", "b", "c"])
    counts = {len(t.split()) for t in texts}
    assert min(counts) == 4 and max(counts) == 24
    assert texts == short_texts(200, ["a", "b", "c"]) != short_texts(200, ["a", "b", "c"], seed=1)
