"""Records of measurements as Markdown tables: one function for each kind of record."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def conditions(record: Record) -> str:
    """One line: where, with what and when the record was made."""
    machine = record["machine"]
    place = f"{machine['processor']}, {machine['threads']} threads"
    if "gpu" in machine:
        gpu = machine["gpu"]
        place = f"{gpu['gpus'][0]['name']}, driver {gpu['driver']}, triton {gpu['triton']}"
    sets = ", ".join(machine["instruction_sets"]) if "gpu" not in machine else ""
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    return "; ".join(x for x in (place, sets, versions, machine["date"]) if x)


def encoders(record: Record) -> str:
    """Encoders on a CPU: equal lengths a precision, then ragged batches."""
    parts = []
    for precision in dict.fromkeys(r["precision"] for r in record["rows"]):
        rows = [r for r in record["rows"] if r["precision"] == precision and not r["case"].startswith("ragged")]
        names = _names(r["rivals"] for r in rows)
        lines = [[n, *(_against_ours(r["rivals"], n, 1e3) for r in rows)] for n in names]
        lines.append(["best peer over ours", *(f"**{r['ratio']:.2f}**" for r in rows)])
        parts.append(grid([f"{precision}, ms (times ours)", *(r["case"] for r in rows)], lines))
    for row in (r for r in record["rows"] if r["case"].startswith("ragged")):
        ranked = sorted(row["rivals"].items(), key=lambda item: item[1]["median"])[:8]
        lines = [[n, f"{r['median'] * 1e3:.0f}", f"{r['sequences_per_s']:.1f}"] for n, r in ranked]
        lines.append(["best peer over ours", f"**{row['ratio']:.2f}**", ""])
        if "ratio_same_peer_padded" in row:
            lines.append(["the same peer padded", f"{row['ratio_same_peer_padded']:.2f}", ""])
        title = f"{row['case']} {row['precision']}, {row['tokens']['real']} tokens"
        parts.append(grid([title, "ms", "sequences/s"], lines))
    return "\n\n".join(parts)


def gpu_encoders(record: Record) -> str:
    """Encoders on a GPU against peers: medians of waited-for calls."""
    names = _names(r["rivals"] for r in record["rows"])
    head = [f"{record['precision']}, ms (times ours)", *names, "best peer over ours", "graphs alone"]
    rows = []
    for row in record["rows"]:
        ratios = row["ratios"]
        shown = [f"{ratios[n]:.2f}" if n in ratios else "-" for n in ("qontext", "qontext graph alone")]
        rows.append([row["case"], *(_against_ours(row["rivals"], n, 1) for n in names), f"**{shown[0]}**", shown[1]])
    return "\n\n".join([grid(head, rows), _builds(record), *_problems(record)])


def gpu_quantised(record: Record) -> str:
    """Encoders in eight bits on a GPU beside fp16: whole calls, and replays of their graphs alone."""
    precisions = list(dict.fromkeys(n.split()[0] for row in record["rows"] for n in row["rivals"]))
    head = ["median ms (times fp16)", *precisions, *(f"{p}, graph alone" for p in precisions), "sequences/s in fp8"]
    head.append("error against float32")
    rows = []
    for row in record["rows"]:
        ways = [_beside(row["rivals"], p, "fp16") for p in precisions]
        ways += [_beside(row["rivals"], f"{p} graph alone", "fp16 graph alone") for p in precisions]
        rate = max((r["per_s"] for n, r in row["rivals"].items() if n.startswith("fp8")), default=None)
        errors = ", ".join(f"{n} {e:.1e}" for n, e in row["errors"].items())
        rows.append([row["case"], *ways, "-" if rate is None else f"{rate:,.0f}", errors])
    built = [[name, f"{b['seconds']:.1f}", str(len(b["steps"]))] for name, b in record["builds"].items()]
    return "\n\n".join([grid(head, rows), grid(["engine", "s to build", "steps"], built), *_problems(record)])


def _beside(rivals: Mapping[str, Any], name: str, other: str) -> str:
    """A median, and how many times as fast as another it is."""
    if name not in rivals:
        return "-"
    mine = rivals[name]["median"]
    return f"{mine:.3f}" + (f" ({rivals[other]['median'] / mine:.2f})" if other in rivals and other != name else "")


def gpu_latency(record: Record) -> str:
    """The latency table of a GPU: every size and length is a block of rows."""
    head = ["case", "mean ms", "median", "p95", "p99", "sequences/s", "runs", "graph alone, ms", "error"]
    rows = []
    for row in sorted(record["rows"], key=lambda r: (r["size"], r["length"], r["batch"])):
        call, graph = row["call"], row.get("graph")
        times = [f"{call[k]:.3f}" for k in ("mean", "median", "p95", "p99")]
        alone = "-" if graph is None else f"{graph['median']:.3f}"
        rows.append([row["case"], *times, f"{row['per_s']:.0f}", str(call["runs"]), alone, f"{row['error']:.1e}"])
    return "\n\n".join([grid(head, rows), _builds(record)])


def gpu_steps(record: Record) -> str:
    """Encoders on a GPU by kernel: those that take most of each case."""
    head = ["kernel (result)", "steps", "us", "TFLOP/s", "TB/s", "tuned us", "least us"]
    parts = []
    for row in record["rows"]:
        lines = [
            [
                f"{k['op']}: {k['kernel']} ({k['shape']})",
                str(k["count"]),
                f"{k['us']:.1f}",
                f"{k['flops'] / k['us'] / 1e6:.0f}",
                f"{k['bytes'] / k['us'] / 1e6:.2f}",
                f"{k['tuned_us']:.1f}" if "tuned_us" in k else "-",
                f"{k['least_us']:.1f}",
            ]
            for k in row["kernels"]
            if k["us"] > 0.01 * row["steps_us"]
        ]
        graph = f", the graph {row['graph_us']:.0f} us" if "graph_us" in row else ""
        total = f"**{row['case']}**: steps {row['steps_us']:.0f} us one by one{graph}, least {row['least_us']:.0f} us; "
        total += (
            f"calls {row['rested_us']:.0f} us rested, {row['steady_us']:.0f} us under steady load, under which the "
        )
        total += f"vendor's product of this size reaches {row['vendor_tflops']:.0f} TFLOP/s."
        parts += [total, grid(head, lines)]
    products = ", ".join(f"{name} {rate:.0f}" for name, rate in record["product_tflops"].items())
    said = "Steps are launched one by one. Tuned: as the planner timed them, small ones in a chain. "
    said += f"Least: of bytes at {record['copy_tb_per_s']:.2f} TB/s and operations at TFLOP/s of {products}."
    return "\n\n".join([said, *parts])


def gpu_attention(record: Record) -> str:
    """Attention on a GPU: useful TFLOP/s of every kernel."""
    cases = list(dict.fromkeys(r["case"] for r in record["rows"]))
    names = list(dict.fromkeys(r["kernel"] for r in record["rows"]))
    found = {(r["case"], r["kernel"]): r for r in record["rows"]}

    def cell(case: str, name: str) -> str:
        row = found.get((case, name))
        if row is None:
            return "-"
        return "failed" if "ms" not in row else f"{row['tflops']:.0f} ({row['ms'] * 1e3:.1f} us)"

    return grid(["useful TFLOP/s", *names], [[c, *(cell(c, n) for n in names)] for c in cases])


def gpu_decode(record: Record) -> str:
    """Attention of the generation phase on a GPU: microseconds and bytes of keys and values a second."""
    rows = []
    for row in record["rows"]:
        shown = [row["failed"], ""] if "us" not in row else [f"{row['us']:.1f}", f"{row['tb_per_s']:.2f}"]
        rows.append([row["case"], row["kernel"], *shown])
    return grid(["case", "kernel", "us", "TB/s"], rows) + f"\n\nA copy moves {record['copy_tb_per_s']:.2f} TB/s."


def gpu_context(record: Record) -> str:
    """The context phase on a GPU beside its pieces."""
    rows = []
    for row in record["rows"]:
        shown = [row["failed"], ""] if "us" not in row else [f"{row['us']:.0f}", f"{row['tflops']:.0f}"]
        rows.append([row["case"], row["kernel"], *shown])
    return grid(["tokens", "kernel", "us", "TFLOP/s"], rows)


def gpu_generate(record: Record) -> str:
    """Generation from end to end on a GPU."""
    rows = [
        [
            str(r["batch"]), str(r["prompt"]), r["kernel"], f"{r['prompts_s'] * 1e3:.1f}", f"{r['step_s'] * 1e3:.2f}",
            f"{r['tokens_per_s']:.0f}", f"{r['of_least']:.0%}",
        ]
        for r in record["rows"]
    ]  # fmt: skip
    head = ["sequences", "tokens of each prompt", "", "prompts, ms", "a step, ms", "tokens/s", "of a copy's bandwidth"]
    said = "timed while it was built" if record["tuned"] else "the first that can, none was timed"
    return grid(head, rows) + f"\n\nKernels: {said}. A copy moves {record['copy_tb_per_s']:.2f} TB/s."


def decode_attention(record: Record) -> str:
    """Attention of the generation phase on a CPU, against the speed at which torch.sum reads."""
    head = ["cache", "ms", "GB/s", "of torch.sum", "best of the rounds"]
    rows = []
    for row in record["rows"]:
        shares = [f"{row[k]:.0%}" for k in ("share_of_sum", "best_share")]
        rows.append([row["variant"], f"{row['milliseconds']:.1f}", f"{row['gigabytes_per_second']:.1f}", *shares])
    sizes = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in record["sizes"].items())
    speed, load = record["sum_gigabytes_per_second"], record["load_average"]
    said = f"{sizes}; torch.sum reads {speed:.1f} GB/s; load average {load}."
    if record.get("one_thread"):
        said += " One thread, by the time that it ran."
    if any("(other)" in row["variant"] for row in record["rows"]):
        said += " (other) is the build of the library before this one."
    return f"{grid(head, rows)}\n\n{said}"


def generate_steps(record: Record) -> str:
    """What a step of a small decoder costs on one thread."""
    head = ["prompts", "tokens of a page", "us a step", "best", "tokens/s"]
    keys = ("prompts", "tokens_per_page", "microseconds_per_step", "best_microseconds_per_step", "tokens_per_second")
    sizes = ", ".join(f"{k} {v}" for k, v in record["sizes"].items())
    rows = [[str(row[k]) for k in keys] for row in record["rows"]]
    return f"{grid(head, rows)}\n\n{sizes}; time of the process; load average {record['load_average']}."


def int8_accuracy(record: Record) -> str:
    """Accuracy on MiniLM beside time on BERT-base, best mean first."""
    head = ["scheme", "mean cosine", "least", "same nearest", "int8 share", f"ms at {record['shape']}", "Gop/s"]
    rows = []
    for row in sorted(record["rows"], key=lambda r: -r["mean"]):
        share = f"{row['int8_share']:.0%}" if "int8_share" in row else "-"
        time = [f"{row['ms']:.1f}", f"{row['gops']:.0f}"] if "ms" in row else ["-", "-"]
        numbers = [f"{row['mean']:.5f}", f"{row['least']:.4f}", f"{row['nearest']:.1%}"]
        rows.append([row["rival"], *numbers, share, *time])
    said = f"{record['sentences']} sentences"
    if record["frontier"]:
        said += f"; nobody is both better and faster than {', '.join(record['frontier'])}"
    return "\n\n".join([grid(head, rows), f"{said}.", *_problems(record)])


def minilm_accuracy(record: Record) -> str:
    """Accuracy on MiniLM by precision and rounding."""
    head = ["scheme", "mean cosine", "least", "same nearest", "share in 8 bits or fewer", "error of weights alone"]
    rows = []
    for row in record["rows"]:
        alone = [e["as_rounded"] for e in row["weights_alone"]]
        numbers = [f"{row['mean']:.5f}", f"{row['least']:.4f}", f"{row['nearest']:.1%}", f"{row['share']:.0%}"]
        rows.append([row["scheme"], *numbers, f"{sum(alone) / len(alone):.4f}" if alone else "-"])
    said = f"{record['sentences']} sentences, {record['samples']} others to calibrate with; fp8 by {record['fp8_by']}."
    return f"{grid(head, rows)}\n\n{said} Errors of weights alone are means over the layers, on rows held back."


def int8_agreement(record: Record) -> str:
    """How often a mask is filled as in float32."""
    rows = [[r["preset"], f"{r['same_as_float32']:.2%}", f"{r['right']:.2%}"] for r in record["rows"]]
    said = f"{record['questions']} held-out questions, of which float32 answers {record['right_in_float32']:.2%} right."
    by = [r["fp8_by"] for r in record["rows"] if "fp8_by" in r]
    said += f" fp8 by {by[0]}." if by else ""
    return "\n\n".join([grid(["demo BERT", "same word as float32", "right word"], rows), said])


def int8_build(record: Record) -> str:
    """Builds with calibration."""
    rows = [[r["preset"], f"{r['seconds']:.0f}"] for r in record["rows"]]
    return grid([f"BERT-base, {record['sentences']} sentences of {record['tokens']} tokens", "s to build"], rows)


def engine_load(record: Record) -> str:
    """Loading engine files."""
    rows = [[r["precision"], f"{r['file_bytes'] / 1e6:.0f}", f"{r['median_s']:.2f}"] for r in record["rows"]]
    return grid([f"engine of {record['model']}", "MB", "s to load, hashes checked"], rows)


def kernels(record: Record) -> str:
    """Single CPU kernels against what else could do the same."""
    rows = []
    for row in record["rows"]:
        rivals = ", ".join(f"{n} {r['us']:.1f}" for n, r in row["rivals"].items())
        rows.append([row["case"], f"{row['us']:.1f}", rivals, f"{row['ratio']:.2f}"])
    return grid(["kernel", "us", "rivals, us", "best over ours"], rows)


def throughput(record: Record) -> str:
    """The embed pipeline."""
    head = ["texts", "tokens", "texts/s", "tokens/s", "s of tokenising alone", "GPU busy"]
    busy = f"{record['gpu_busy_share']:.0%}" if "gpu_busy_share" in record else "-"
    numbers = [record["texts"], record["tokens"], record["texts_per_s"], record["tokens_per_s"]]
    return grid(head, [[*(f"{n:,.0f}" for n in numbers), f"{record['tokenising_s']:.2f}", busy]])


def _builds(record: Record) -> str:
    rows = [
        [size, f"{b['first_s']:.1f}", f"{b['again_s']:.1f}", f"{b['load_s']:.2f}", str(len(b["steps"]))]
        for size, b in record["builds"].items()
    ]
    return grid(["engine", "s to build, cold", "s, timings known", "s to load", "steps"], rows)


def _problems(record: Record) -> list[str]:
    """What was not measured, and why: a sentence for each reason."""
    cases: dict[str, list[str]] = {}
    for problem in record["problems"]:
        case, _, reason = problem.partition(": ")
        cases.setdefault(reason, []).append(case)
    return [f"Not measured ({reason}): {'; '.join(found)}." for reason, found in cases.items()]


def _names(rivals: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of all rivals, ours first."""
    found = dict.fromkeys(n for r in rivals for n in r)
    return sorted(found, key=lambda n: not n.startswith("qontext"))


def _against_ours(rivals: Mapping[str, Any], name: str, unit: float) -> str:
    """Milliseconds of a rival and, for a peer, its time over ours."""
    if name not in rivals:
        return "-"
    median = rivals[name]["median"]
    digits = 1 if unit > 1 else 3
    shown = f"{median * unit:.{digits}f}"
    ours = next((r["median"] for n, r in rivals.items() if n.startswith("qontext")), None)
    return shown if name.startswith("qontext") or ours is None else f"{shown} ({median / ours:.2f})"


Table = Callable[[Record], str]
TABLES: Sequence[tuple[str, str, Table]] = (
    ("gpu-encoders", "Encoders on a GPU against peers", gpu_encoders),
    ("gpu-quantised", "Encoders in eight bits on a GPU", gpu_quantised),
    ("gpu-latency", "Latency of encoders on a GPU", gpu_latency),
    ("gpu-steps", "Encoders on a GPU by kernel", gpu_steps),
    ("gpu-attention", "Attention on a GPU", gpu_attention),
    ("gpu-decode", "Attention of the generation phase on a GPU", gpu_decode),
    ("gpu-context", "The context phase on a GPU", gpu_context),
    ("gpu-generate", "Generation on a GPU", gpu_generate),
    ("embed-throughput", "The embed pipeline", throughput),
    ("encoders", "Encoders on a CPU against peers", encoders),
    ("int8-accuracy", "int8 on a CPU: accuracy beside speed", int8_accuracy),
    ("minilm-accuracy", "MiniLM in few bits: accuracy by precision and rounding", minilm_accuracy),
    ("int8-agreement", "Demo BERT in int8 and fp8: the same word in a mask", int8_agreement),
    ("int8-build", "int8 on a CPU: builds with calibration", int8_build),
    ("decode-attention", "Attention of the generation phase on a CPU", decode_attention),
    ("generate-steps", "A step of a small decoder on a CPU", generate_steps),
    ("engine-load", "Loading an engine", engine_load),
    ("native-kernels", "CPU kernels", kernels),
)
