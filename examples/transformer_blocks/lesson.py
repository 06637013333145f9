"""The lesson "from PyTorch code to kernels": its texts and its code, cell by cell.

`write.py` runs the cells and writes docs/transformer-blocks.md and the notebook from them.
"""

from modules import SOURCES

INTRO = """# Transformer blocks in depth

From PyTorch code to the kernels that run: vanilla self-attention, several heads, masks and ragged batches, cross
attention, a whole BERT layer, and the two phases of a GPT. For each block: the code, the graph that the exporter
makes of it, the graph after fusion, the kernels, what was fused and why, what was not and why, and what bytes and
flops allow.

Everything on this page (pictures, tables, numbers) is written by `examples/transformer_blocks/write.py`, which runs
the code that the page shows. The same is a notebook: `examples/transformer_blocks/transformer_blocks.ipynb`. Times
are those of the machine that wrote the page, one thread without a GPU; the notebook shows those of yours.

In the pictures, blue is a product with weights, orange attention, green a norm, yellow an activation, purple a
look-up, and grey everything else. Dashed boxes are inputs and outputs.
"""

START = """import torch
from torch import nn

from block import Block, Program, Text

torch.set_num_threads(1)  # so that times depend little on what else the machine does
_ = torch.manual_seed(0)"""

VANILLA = """## 1. Vanilla self-attention

One head. One linear layer makes query, key and value, the scores are masked with -1000 where the mask is zero,
softmax, the product with the values, and a linear layer at the end.
"""

VANILLA_SAYS = """What to see:

- **Two products with weights stay products**, and nothing else stays: bias, chunk, transpose, scaling, comparison,
  fill, softmax and the product with the values went into one attention kernel. The three slices of `chunk` cost
  nothing, since the kernel reads query, key and value where the projection wrote them.
- **The bias of the output projection is in its product**, as an epilogue. It is one of the things that compilers like
  to leave as a kernel of its own.
- **-1000 is not minus infinity.** A row whose mask is zero everywhere attends to all keys alike; the fused operator
  carries that as `empty_row = uniform`, so its results are PyTorch's for such rows too.
"""

HEADS = """## 2. Several heads

The same with eight heads: the features are cut into heads, which become a batch axis and are put together again.
"""

HEADS_SAYS = """The reshapes and transposes around the heads are gone: the kernel strides over `[B, S, 3*N*D]` as it
lies. What torch runs as copies (one for each transpose that must become contiguous) are addresses here. The mask of
`[B, S]` is read as it is, in any type.
"""

RAGGED = """## 3. Masks and ragged batches

A batch of texts is ragged, and padding makes it square. This encoder gets ids and a mask, as a tokenizer gives them.
The mask says which tokens are real, so the engine computes those alone: `PackIndex` finds them once, `PackTokens`
gathers their ids, everything in between runs on `[T, ...]`, and `UnpackTokens` writes zeros where padding was.
"""

RAGGED_COUNT = """ids = torch.randint(0, 1000, (2, 100))
mask = torch.zeros(2, 100, dtype=torch.long)
mask[0, :100], mask[1, :10] = 1, 1
out = ragged.engine.run({"input_ids": ids, "attention_mask": mask})
rows = []
ragged.engine.run({"input_ids": ids, "attention_mask": mask}, observe=lambda step, made: rows.append((step.op, made)))
linear = next(made[0] for op, made in rows if op == "Linear")
Text(f"Lengths 100 and 10: the padded batch has {mask.numel()} tokens, the linear layers see {len(linear)}.")"""

RAGGED_SAYS = """The mask becomes `cu_seqlens`, the row at which each sequence begins: 100 and 10 give 0, 100, 110.
The attention kernel never sees a padded key, so there is no mask to add either.
"""

CROSS = """## 4. Cross attention

Queries come from one sequence, keys and values from another of a different length.
"""

CROSS_SAYS = """Query, key and value are not cut out of one projection here, so the operator is `Attention` with
separate inputs, and the projections of key and value stay two products: they read the same memory and would join into
one, but their results are needed apart. The lengths differ; a causal mask, where there is one, is aligned with the
last query (bottom right), as ONNX says, not with the first as `is_causal` of PyTorch does.
"""

BERT = """## 5. A whole BERT layer

The layer of `transformers`, with the sizes of BERT-base and random weights.
"""

BERT_SAYS = """Seven kernels a layer: the joint projection, attention, the output projection, add and norm, the first
linear layer with GELU inside, the second, add and norm. Each reads what the one before wrote, and nothing else but
weights. With 128 tokens a number of the weights serves 128 rows once it is read, some fifty flops a byte: enough to
keep a processor's cores busy with arithmetic, and far too few for a GPU that computes hundreds of flops in the
time of a byte. There the weights are the limit until a batch has several hundred tokens.
"""

PREFILL = """## 6. GPT: prefill and decode

A decoder layer is run in two ways. **Prefill** takes the prompt: all positions at once, each seeing those before it.
"""

PREFILL_SAYS = """The triangle of the mask never exists: PyTorch says `is_causal`, the exporter writes that into the
ONNX Attention, and the fused operator is of kind `causal`, which leaves out the keys above the diagonal. Half of the
products of the scores are not computed. Where an exporter does write a triangle into the graph, the rule `mask` tries
it out, sees that it depends on positions, causally, and makes the same kind of it.
"""

DECODE = """**Decode** takes one token a sequence. Keys and values of all tokens before come as a cache, and the new
ones are put behind them.
"""

DECODE_SAYS = """One query against many keys: each key and value is read once for two flops a number, so decoding is
bound by the traffic of the weights and of the cache, whatever the processor. In this graph the cache is an input and
an output, and `Concat` copies it for each token: it is one of the steps above that torch runs too. What is not fused
is said there as well: the key comes from `Concat`, so the projections are not read in place and the heads are split
by reshapes (views, a few microseconds each of the host). An operator that owns its cache and updates it in place does
away with both.
"""

GPT = """## 7. A GPT with its cache

The decoder of a Hugging Face folder becomes an engine with three programs over the same weights: `encode` (all logits
of a batch), `prefill` and `decode`. The caches belong to the engine and are paged: a step gets them as inputs and
writes the new keys and values into them, in place. Here a GPT-2 of two layers with random weights.
"""

GPT_PREFILL_SAYS = """Prefill, one layer of the two. Prompts of any lengths stand one after the other, so there is no
padding to remove; `GptAttention` gets the lengths, the page table and the cache, writes keys and values where the table
says and attends.
"""

GPT_DECODE_SAYS = """Decode, the same layer: one token a sequence.
"""

GPT_SAYS = """No `Concat`, no copy of the cache: what the module above had to hand through its inputs and outputs is
memory of the engine here, and a step reads each cached key and value once. Weights are the rest of the traffic, the
same for one sequence or many, which is why decoding is batched.
"""

END = """## Where to look next

- `qontext explain MODEL --html report.html` makes such a report of any model, with both graphs side by side.
- `qontext explain MODEL --against torch` lists the kernels of both, layer by layer.
- `qontext compare MODEL ENGINE` says where an error starts.
- [The operators](operators.md), one page each with its ONNX sub-graph, every input, and notes on its kernels:
  [QKVToContext](operators/QKVToContext.md), [Attention](operators/Attention.md), [Linear](operators/Linear.md).
- [The rules](fusions.md), in their order.
"""


def views(name: str, graphs: bool = True) -> list[tuple[str, str]]:
    """The cells that show a block."""
    shown = [
        ("md", "The graph as it is imported, and as it is fused:"),
        ("code", f"{name}.imported()"),
        ("code", f"{name}.fused()"),
    ]
    return [
        *(shown if graphs else []),
        ("md", "What runs:"),
        ("code", f"{name}.kernels()"),
        ("code", f"{name}.why()"),
        ("md", "Against the limit, and beside PyTorch:"),
        ("code", f"{name}.limits()"),
        ("code", f"{name}.beside_torch()"),
    ]


CELLS: list[tuple[str, str]] = [
    ("md", INTRO),
    ("code", START),
    ("md", VANILLA),
    ("code", SOURCES["vanilla"]),
    *views("vanilla"),
    ("md", VANILLA_SAYS),
    ("md", HEADS),
    ("code", SOURCES["heads"]),
    *views("heads"),
    ("md", HEADS_SAYS),
    ("md", RAGGED),
    ("code", SOURCES["ragged"]),
    *views("ragged"),
    ("code", RAGGED_COUNT),
    ("md", RAGGED_SAYS),
    ("md", CROSS),
    ("code", SOURCES["cross"]),
    *views("cross"),
    ("md", CROSS_SAYS),
    ("md", BERT),
    ("code", SOURCES["bert"]),
    *views("bert"),
    ("md", BERT_SAYS),
    ("md", PREFILL),
    ("code", SOURCES["prefill"]),
    *views("prefill"),
    ("md", PREFILL_SAYS),
    ("md", DECODE),
    ("code", SOURCES["decode"]),
    *views("decode"),
    ("md", DECODE_SAYS),
    ("md", GPT),
    ("code", SOURCES["gpt"]),
    ("md", GPT_PREFILL_SAYS),
    ("code", 'gpt_prefill.imported("transformer.h.0")'),
    ("code", 'gpt_prefill.fused("transformer.h.0")'),
    ("code", "gpt_prefill.kernels()"),
    ("code", "gpt_prefill.why()"),
    ("code", "gpt_prefill.limits()"),
    ("md", GPT_DECODE_SAYS),
    ("code", 'gpt_decode.fused("transformer.h.0")'),
    ("code", "gpt_decode.kernels()"),
    ("code", "gpt_decode.limits()"),
    ("code", "gpt_decode.memory()"),
    ("md", GPT_SAYS),
    ("md", END),
]
