"""Measures what a step of generation costs beside its products: tokens a second of a decoder with random weights.

Usage: python bench/generate_steps.py [--output FOLDER] [--name SUFFIX] [--rounds N] [--layers N] [--hidden E]

The decoder is small, so that Python, launches of torch operators and the reading of counts show. Time is that of the
process (its threads together wait for nothing here), one thread, so other work on the machine disturbs it little.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import transformers

import qontext as qx
from qontext.benchmark.machine import machine
from qontext.generation.loop import Settings

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", default="bench/results")
parser.add_argument("--name", default="", help="suffix of the file name")
parser.add_argument("--rounds", type=int, default=9)
parser.add_argument("--layers", type=int, default=4)
parser.add_argument("--hidden", type=int, default=128)
arguments = parser.parse_args()

PROMPT, NEW = 32, 64
CASES = ((1, 0), (1, 16), (8, 16), (32, 16))  # prompts, tokens of a page (0: contiguous)


def folder() -> str:
    """A decoder with random weights, written to a new folder."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=512,
        hidden_size=arguments.hidden,
        intermediate_size=2 * arguments.hidden,
        num_hidden_layers=arguments.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    where = tempfile.mkdtemp()
    transformers.LlamaForCausalLM(config).save_pretrained(where)
    return where


def main() -> None:
    torch.set_num_threads(1)
    engine = qx.build(qx.import_model(folder()), tune=False)
    rows = []
    for prompts, page in CASES:
        given = torch.randint(0, 512, (prompts, PROMPT), generator=torch.Generator().manual_seed(1)).tolist()
        taken = []
        for _ in range(arguments.rounds + 1):
            steps = engine.generator.steps(given, Settings(NEW, tokens_per_page=page))
            next(steps)
            begin = time.process_time()
            for _ in steps:
                pass
            taken.append((time.process_time() - begin) / (NEW - 1))
        best, middle = min(taken[1:]), statistics.median(taken[1:])
        rows.append(
            {
                "prompts": prompts,
                "tokens_per_page": page,
                "microseconds_per_step": round(middle * 1e6),
                "best_microseconds_per_step": round(best * 1e6),
                "tokens_per_second": round(prompts / middle),
            }
        )
        print(rows[-1])
    result = {
        "machine": machine(),
        "load_average": round(os.getloadavg()[0], 2),
        "sizes": {"layers": arguments.layers, "hidden": arguments.hidden, "prompt": PROMPT, "new": NEW},
        "rows": rows,
    }
    path = Path(arguments.output) / f"generate-steps{'-' if arguments.name else ''}{arguments.name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
