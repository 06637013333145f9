"""One block of a Transformer, from its PyTorch code to the kernels that run it, in pictures and tables."""

import os
from collections.abc import Mapping
from typing import Any

import torch

import qontext as qx
from qontext.dtypes import relative_rms
from qontext.report import numbers
from qontext.report.html import fusion_groups
from qontext.report.picture import boxes_of, svg
from qontext.report.torch_trace import trace

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler writes a line for each start otherwise


TRIES = 1  # measurements, of which the quickest counts: more where the machine does other things at the same time


class Text:
    """Markdown, shown as such by a notebook."""

    def __init__(self, text: str):
        self.text = text

    def _repr_markdown_(self) -> str:
        return self.text

    def __str__(self) -> str:
        return self.text


class Picture:
    """A picture, shown as such by a notebook; `name` is that of its file."""

    def __init__(self, name: str, drawing: str):
        self.name, self.drawing = name, drawing

    def _repr_svg_(self) -> str:
        return self.drawing

    def __str__(self) -> str:
        return f"<picture {self.name}>"


class View:
    """What is shown of an engine's program, from its report."""

    data: Mapping[str, Any]

    def kernels(self) -> Text:
        """What runs: step, kernel, shape, and what it costs at least."""
        rows = ["| Step | Kernel | Result | Moves | Computes | Flop a byte | Takes |", "|---|---|---|---|---|---|---|"]
        for s in self.data["steps"]:
            ratio = f"{s['flops'] / s['bytes']:.1f}" if s["bytes"] else ""
            rows.append(
                f"| {s['op']} | `{s['kernel']}` | {s['dtype']} {' '.join(s['shapes'])} | {numbers.size(s['bytes'])} "
                f"| {numbers.count(s['flops'] / 1e3)} kflop | {ratio} | {numbers.span(s['us'])} |"
            )
        sums = self.data["accounting"]
        went = f"{sums['fused']} fused, {sums['step']} left, {sums['folded']} folded, {sums['removed']} removed"
        rows += ["", f"{sums['imported']} imported nodes became {sums['steps']} steps: {went}."]
        return Text("\n".join(rows))

    def why(self) -> Text:
        """What was fused and why, and what was not and why."""
        docs = {rule.name: rule.doc for rule in _rules()}
        lines = ["**Fused**", ""]
        for f in fusion_groups(self.data["fusions"]):
            times = f", {f['count']} times" if f["count"] > 1 else ""
            before = " + ".join(f["before"]) if len(f["before"]) < 9 else f"{len(f['before'])} operators"
            note = f" ({f['note']})" if f["note"] else ""
            lines.append(f"- `{f['rule']}`{times}: {before} → **{f['after']}**{note}. {docs.get(f['rule'], '')}")
        lines += ["", "**Not fused**", ""]
        for r in self.data["refusals"]:
            lines.append(f"- `{r['rule']}`: {r['reason']}. It would fuse: {r['would_fuse']}.")
        if not self.data["refusals"]:
            lines.append("Nothing that came near: no rule refused a candidate.")
        return Text("\n".join(lines))

    def limits(self) -> Text:
        """Bytes and flops against what this machine did at most."""
        c = self.data["measured"]["ceilings"]
        copy, rate = c["copy_bytes_per_s"], c["flops_per_s"]["float32"]
        steps = self.data["steps"]
        moved, flops = sum(s["bytes"] for s in steps), sum(s["flops"] for s in steps)
        memory, arithmetic = moved / copy * 1e6, flops / rate * 1e6
        least = sum(s["best_us"] for s in steps)
        bound = [s["op"] for s in steps if s["bytes"] / copy > s["flops"] / rate]
        return Text(
            f"The steps move {numbers.size(moved)} and compute {numbers.count(flops / 1e6)} Mflop. A copy here runs at "
            f"{numbers.rate(copy, 'B')}, a large product at {numbers.rate(rate, 'flop')}, so all the traffic takes at "
            f"least {numbers.span(memory)} and all the arithmetic {numbers.span(arithmetic)}; step by step the larger "
            f"of the two adds up to {numbers.span(least)}. Measured: {numbers.span(self.data['measured']['run_us'])} "
            "a run. "
            f"Memory is the limit of {', '.join(dict.fromkeys(bound)) or 'no step'}, arithmetic of the rest."
        )


class Block(View):
    """A module, imported and built, with its results checked against PyTorch.

    Args:
        name: of its pictures.
        module, inputs: what is imported, with example inputs by argument name; the inputs are timed too.
        axes: open axes by input, as `import_model(dynamic_shapes=)` takes them.
    """

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        axes: Mapping[str, Mapping[int, str]] | None = None,
    ):
        self.name, self.module, self.inputs = name, module.eval(), dict(inputs)
        self.model = qx.import_model(module, example_inputs=self.inputs, dynamic_shapes=axes)
        self.engine = qx.build(self.model, tune=False)
        with torch.no_grad():
            wanted = module(**self.inputs)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        got = self.engine.run(self.inputs).values()
        self.error = max(relative_rms(g, w) for g, w in zip(got, wanted, strict=True))
        assert self.error < 1e-5, f"{name}: the engine is {self.error:.1e} away from PyTorch"
        tries = [qx.explain(self.engine, inputs=self.inputs).data for _ in range(TRIES)]
        self.data = min(tries, key=lambda d: d["measured"]["run_us"])

    def imported(self, only: str = "") -> Picture:
        """The graph as the exporter gave it."""
        return Picture(f"{self.name}-imported", svg(boxes_of(self.model.graph, only), f"{self.name}, imported"))

    def fused(self, only: str = "") -> Picture:
        """The graph after fusion, before padding is removed and kernels are chosen."""
        graph = self.engine.compiled.fused
        return Picture(f"{self.name}-fused", svg(boxes_of(graph, only), f"{self.name}, fused"))

    def beside_torch(self) -> Text:
        """The kernels of PyTorch eager, seen by its profiler, and ours."""
        tries = [trace(self.module, self.inputs) for _ in range(TRIES)]
        theirs = min(tries, key=lambda t: t.run_us)
        names: dict[str, int] = {}
        for kernel in theirs.kernels:
            names[kernel.name] = names.get(kernel.name, 0) + 1
        listed = ", ".join(f"{n} `{name}`" if n > 1 else f"`{name}`" for name, n in names.items())
        ours = self.data["measured"]["run_us"]
        return Text(
            f"PyTorch eager: **{len(theirs.kernels)} kernels** ({listed}), {numbers.span(theirs.run_us)} a run. "
            f"qontext: **{len(self.data['steps'])} kernels**, {numbers.span(ours)} a run."
        )

    def compared(self) -> Text:
        """One line on the results."""
        return Text(f"The results differ from PyTorch's by {self.error:.0e} (relative RMS).")


class Program(View):
    """A program of a decoder engine, one step of it timed.

    Args:
        name: of its pictures.
        model, engine: the engine was built from the model.
        program: "prefill" or "decode".
        batch, length: sequences, and tokens of each: new ones of a prefill, cached ones of a decode step.
    """

    def __init__(self, name: str, model: Any, engine: Any, program: str, batch: int, length: int):
        self.name, self.model, self.engine, self.program = name, model, engine, program
        tries = [qx.explain(engine, batch, length, program=program).data for _ in range(TRIES)]
        self.data = min(tries, key=lambda d: d["measured"]["run_us"])

    def imported(self, only: str = "") -> Picture:
        """The graph that the importer built."""
        graph = self.model.programs[self.program]
        return Picture(f"{self.name}-imported", svg(boxes_of(graph, only), f"{self.name}, imported"))

    def fused(self, only: str = "") -> Picture:
        """The graph that runs."""
        graph = self.engine.compiled.programs[self.program].graph
        return Picture(f"{self.name}-fused", svg(boxes_of(graph, only), f"{self.name}, fused"))

    def memory(self) -> Text:
        """Bytes of weights, arena and caches."""
        m = self.data["memory"]
        return Text(
            f"Weights {numbers.size(m['weights'])}, arena {numbers.size(m['arena'])}, caches "
            f"{numbers.size(m['caches'])} in pages of 64 tokens, updated in place."
        )


def _rules() -> tuple[Any, ...]:
    from qontext.fusion.catalogue import RULES

    return RULES
