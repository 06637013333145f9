"""Tiny encoders of transformers and the modules of the seeds, exported by torch's two exporters."""

import functools
import io
import logging
import math
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
import transformers as tf
from torch import nn

VOCABULARY = 99
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "bert": (tf.BertModel, tf.BertConfig, _SIZES),
    "roberta": (tf.RobertaModel, tf.RobertaConfig, {**_SIZES, "pad_token_id": 1, "type_vocab_size": 1}),
    "distilbert": (
        tf.DistilBertModel,
        tf.DistilBertConfig,
        {
            "vocab_size": VOCABULARY,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": 64,
        },
    ),
    "electra": (tf.ElectraModel, tf.ElectraConfig, {**_SIZES, "embedding_size": 16}),
    "albert": (tf.AlbertModel, tf.AlbertConfig, {**_SIZES, "embedding_size": 16}),
    "mpnet": (tf.MPNetModel, tf.MPNetConfig, _SIZES),
}


class Encoder(nn.Module):
    """ids and mask -> last_hidden_state."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


@functools.cache
def encoder(family: str, attention: str) -> Encoder:
    """A random encoder in evaluation mode; its norms have weights that are not 1."""
    model, config, sizes = FAMILIES[family]
    settings = config(**sizes)
    settings._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = model(settings)
        for parameter in body.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
    return Encoder(body).eval()


class SelfAttention(nn.Module):
    """The layer of the notebook: one head, one projection, masked_fill with -1e3."""

    def __init__(self, dim: int = 24):
        super().__init__()
        self.dim = dim
        self.qkv_proj = nn.Linear(dim, dim * 3)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv_proj(x).chunk(3, dim=-1)
        score = torch.matmul(q, k.transpose(-2, -1)) / (self.dim**0.5)
        score = score.masked_fill(mask == 0, -1e3)
        return self.out_proj(torch.matmul(score.softmax(dim=-1), v))


class SequenceFirst(nn.Module):
    """The BertSelfAttention of the first seed: [S, B, E], heads by bmm on [B*N, S, D], an additive mask."""

    def __init__(self, width: int = 24, heads: int = 4):
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.size(0), x.size(1) * self.heads, self.size)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        length, batch = hidden.size(0), hidden.size(1)
        query = self.split(self.query(hidden)).transpose(0, 1)
        key = self.split(self.key(hidden)).permute(1, 2, 0)
        value = self.split(self.value(hidden)).transpose(0, 1)
        scores = torch.bmm(query, key).view(batch, self.heads, length, length) / math.sqrt(self.size) + mask
        probs = torch.softmax(scores, dim=-1).view(batch * self.heads, length, length)
        context = torch.bmm(probs, value).transpose(0, 1).contiguous()
        return context.view(length, batch, self.heads * self.size)


def export(module: nn.Module, inputs: dict[str, torch.Tensor], axes: dict[str, dict[int, str]], door: str) -> bytes:
    """The ONNX file of a module. `door` is an exporter and an opset: "traced-14", "captured-20"."""
    exporter, opset = door.split("-")
    captured = exporter == "captured"
    names = {name: torch.export.Dim(name) for name in {n for a in axes.values() for n in a.values()}}
    shapes = tuple({i: names[n] for i, n in axes[k].items()} for k in inputs)
    dynamic = {"dynamic_shapes": shapes, "external_data": False} if captured else {"dynamic_axes": axes}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        path = Path(folder) / "model.onnx"
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                str(path),
                dynamo=captured,
                opset_version=int(opset),
                input_names=list(inputs),
                output_names=["y"],
                **dynamic,
            )
        return path.read_bytes()


@functools.cache
def exported_encoder(family: str, attention: str, door: str) -> bytes:
    """The ONNX file of an encoder, exported once for all tests."""
    axes = {name: {0: "B", 1: "S"} for name in ("input_ids", "attention_mask")}
    return export(encoder(family, attention), feeds(2, 7), axes, door)


def feeds(batch: int = 3, length: int = 9) -> dict[str, torch.Tensor]:
    """Ragged sequences: a full one, one with a hole and padding, a wholly masked one."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[1, length // 2 :] = 0
    mask[1, 1] = 0
    mask[2:] = 0
    return {"input_ids": torch.randint(2, VOCABULARY, (batch, length), generator=generator), "attention_mask": mask}
