"""The page `docs/fusions.md`, written from the catalogue of rules: `python -m qontext.fusion.docs`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from .catalogue import FOR_A_GPU, FOR_THE_HOST, MERGING, NORMAL_FORM
from .rule import Rule

PAGE = Path(__file__).resolve().parents[3] / "docs" / "fusions.md"
_HEAD = """# Fusions

This page is written from the rules in `src/qontext/fusion` by `python -m qontext.fusion.docs`; a test keeps it true.

A graph is fused in two stages. The first brings it to **normal form**: whatever an exporter made of a linear layer, a
norm, a GELU or an attention becomes one operator of ours. The second **merges** operators in normal form. A graph from
the Hugging Face door is in normal form from the beginning, so only the second stage changes it. Programs built for a
GPU are joined further.

A rule looks at each node of certain operators (its anchors) and walks from there. The first condition that does not
hold ends the walk: where at least one held before, the refusal is recorded with its reason, the node that failed and
the number of conditions that held, and `explain` shows the nearest miss. Each application is recorded with the nodes it
took, and the build log shows it:

```
gelu: 8 operators (4 Mul, 2 Add, Tanh, Pow) -> Gelu(tanh)  at encoder.layer.0.intermediate
```

Three things are known by what they compute, not by how they are spelled:

- **Reshapes and transposes.** A chain of them cuts axes into pieces, orders the pieces and joins them. Two chains with
  the same pieces in the same order are the same, whether an exporter went through `[B, N, S, D]`, `[B*N, S, D]` or back
  and forth.
- **GELU.** The operators around Erf or Tanh are run on sample points and compared with GELU.
- **Masks, positions and token types.** The operators that make them are run on zeros, ones and random patterns for two
  choices of sizes, one of them beyond every length that a constant in the chain may stand for.
"""
_ROWS = """## What a wholly masked row gets

A query that may attend to no key has no softmax of its own. What it gets depends on how the model masks, and the rules
keep it in the attribute `empty_row`:

| Mask in the model | Wholly masked row | `empty_row` |
|---|---|---|
| -inf added, -inf by Where, or a boolean mask | zeros, where torch computes NaN or zeros | `zeros` |
| a finite number in place of the scores (`masked_fill(mask == 0, -1e3)`) | every key the same weight | `uniform` |
| a finite number added to the scores (`(1 - mask) * -10000`) | the softmax of the scores themselves | `as_unmasked` |
| a finite number added that is so large that the sum loses the scores (float32: from about -5e8) | every key the same \
weight | `uniform` |

A number above -1000 is no mask: what it hides keeps a share of the softmax. Such a mask stays an addition.
"""
_OWN = """## A rule of your own

`qontext.build(model, plugins=[op], rules=[rule])` runs rules of yours. A rule marked `early` runs between the two
stages, on the normal form; the others run after all of ours. `examples/layer_norm_plugin` has one.

A `Rule` has a name, a sentence that says what becomes what, the anchors, and two functions. `check(node, rewriter)`
returns what `rewrite` needs, or refuses by raising `NoFusion`; `Conditions` counts what held.
`rewrite(node, found, rewriter)` changes the graph through the rewriter only, so that the ledger of nodes adds up. Both
see constants, symbolic shapes, producers and readers through the `Rewriter`.
"""


def page() -> str:
    """The whole page."""
    stages = [
        ("Normal form", NORMAL_FORM),
        ("Merging", MERGING),
        ("Programs of a processor", FOR_THE_HOST),
        ("Programs of a GPU", FOR_A_GPU),
    ]
    return "\n".join([_HEAD, *(_stage(title, rules) for title, rules in stages), _ROWS, _OWN])


def _stage(title: str, rules: Sequence[Rule]) -> str:
    rows = [("Rule", "What becomes what", "Looks at", "Why here")]
    rows += [(f"`{r.name}`", r.doc, ", ".join(sorted(r.anchors)) or "every node", r.why) for r in rules]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"## {title}", "", "In this order:", "", lines[0], "|" + "---|" * 4, *lines[1:], ""])


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
