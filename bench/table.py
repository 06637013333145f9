"""Prints the Markdown tables of a record that bench/encoders.py wrote.

Usage: python bench/table.py bench/results/encoders-base-epyc-zen4-fp32.json
"""

import json
import sys
from pathlib import Path


def cell(row, name):
    """Milliseconds of a rival, and the ratio of its time to ours."""
    found = row["rivals"].get(name)
    if found is None:
        return "-"
    ours = next(r["median"] for n, r in row["rivals"].items() if n.startswith("qontext"))
    return f"{found['median'] * 1e3:.1f}" + ("" if name.startswith("qontext") else f" ({found['median'] / ours:.2f})")


def equal_lengths(rows, precision):
    rows = [r for r in rows if r["precision"] == precision and "x" in r["case"]]
    names = sorted({n for r in rows for n in r["rivals"]}, key=lambda n: (n != "qontext", n))
    lines = [f"| {precision}, ms (time over ours) | " + " | ".join(r["case"] for r in rows) + " |"]
    lines.append("|---" * (len(rows) + 1) + "|")
    lines += [f"| {n} | " + " | ".join(cell(r, n) for r in rows) + " |" for n in names]
    lines.append("| best peer over ours | " + " | ".join(f"**{r['ratio']:.2f}**" for r in rows) + " |")
    return "\n".join(lines)


def ragged(row):
    lines = [
        f"| {row['case']} {row['precision']} ({row['tokens']['real']} real tokens) | ms | sequences/s |",
        "|---|---|---|",
    ]
    ranked = sorted(row["rivals"].items(), key=lambda item: item[1]["median"])
    lines += [f"| {n} | {r['median'] * 1e3:.0f} | {r['sequences_per_s']:.1f} |" for n, r in ranked[:8]]
    lines.append(
        f"| best peer over ours | **{row['ratio']:.2f}** | "
        f"the same peer padded: {row.get('ratio_same_peer_padded', 0):.2f} |"
    )
    return "\n".join(lines)


record = json.loads(Path(sys.argv[1]).read_text())
machine = record["machine"]
versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
sets = ", ".join(machine["instruction_sets"])
print(
    f"{record['model']}: {machine['processor']}, {machine['threads']} threads, {sets}; {versions}; {machine['date']}\n"
)
for kind in dict.fromkeys(r["precision"] for r in record["rows"]):
    print(equal_lengths(record["rows"], kind) + "\n")
for row in record["rows"]:
    if row["case"].startswith("ragged"):
        print(ragged(row) + "\n")
print(json.dumps(record["summary"], indent=1))
