"""Trains the demo model from the fact table and writes a Hugging Face model folder.

The shipped weights come from the default options on one GPU. The run is seeded; two machines still differ in
the last bits of their sums, so their weights agree in quality, not bit by bit.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from batches import Encoder, batches
from corpus import Corpus
from held_out import check_held_out
from templates import read_templates
from transformers import BertConfig, BertForMaskedLM
from vocabulary import MAX_LENGTH, build_vocabulary, save_tokenizer

LOG_EVERY = 200


def demo_config(vocabulary_size: int, dropout: float) -> BertConfig:
    """The shape of the demo model: as large as fits in 12 MB of float32."""
    return BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        hidden_act="gelu",
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=MAX_LENGTH,
        type_vocab_size=2,
        pad_token_id=0,
        architectures=["BertForMaskedLM"],
    )


def learning_rate(step: int, steps: int) -> float:
    """Share of the peak rate: a linear rise over the first 5 %, then a linear fall to zero."""
    rise = max(1, steps // 20)
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--texts", type=int, default=250_000, help="texts to generate; they are gone through again")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


def main() -> None:
    """Generate, train, save."""
    options = parse_options()
    check_held_out(read_templates("train"), read_templates("dev") + read_templates("test"))
    torch.manual_seed(options.seed)
    device = torch.device(options.device)
    began = time.monotonic()
    corpus = Corpus(options.seed)
    vocabulary = build_vocabulary(corpus.vocabulary())
    encoded = Encoder(corpus, vocabulary).encode(options.texts)
    print(f"{len(encoded.ids)} texts, {len(vocabulary)} tokens, {time.monotonic() - began:.0f} s", flush=True)

    model = BertForMaskedLM(demo_config(len(vocabulary), options.dropout)).to(device).train()
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
        lr=options.rate,
        fused=device.type == "cuda",
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, options.steps))
    stream = batches(encoded, options.batch, options.seed, device)
    total = torch.zeros((), device=device)
    last_loss = float("nan")
    for step in range(1, options.steps + 1):
        ids, attention_mask, labels = next(stream)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(input_ids=ids, attention_mask=attention_mask, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.detach()
        if step % LOG_EVERY == 0 or step == options.steps:
            last_loss = float(total) / ((step - 1) % LOG_EVERY + 1)
            total.zero_()
            print(f"step {step} loss {last_loss:.4f} {time.monotonic() - began:.0f} s", flush=True)

    options.out.mkdir(parents=True, exist_ok=True)
    model.float().cpu().eval().save_pretrained(options.out)
    save_tokenizer(vocabulary, options.out)
    record = {
        "steps": options.steps,
        "batch": options.batch,
        "texts": len(encoded.ids),
        "peak_learning_rate": options.rate,
        "dropout": options.dropout,
        "seed": options.seed,
        "last_loss": round(last_loss, 4),
        "seconds": round(time.monotonic() - began),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "parameters": model.num_parameters(),
        "vocabulary": len(vocabulary),
    }
    (options.out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
