"""Plots of a report as SVG: where the time goes, the roofline, memory over the steps. Colours come from the page."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from . import numbers
from .colours import FAMILIES, OTHER, family_of

Row = Mapping[str, Any]
_W, _H = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 88, 14, 16, 44


def time_bar(steps: Sequence[Row]) -> str:
    """One bar of buttons: the share of each family of operators in the time of all steps."""
    total = sum(s["us"] for s in steps) or 1.0
    spent: dict[str, float] = {}
    for step in steps:
        family = family_of(step["op"])
        spent[family] = spent.get(family, 0.0) + step["us"]
    parts = []
    for family in [*(name for name, _ in FAMILIES), OTHER]:
        if family in spent:
            label = f"{family} {numbers.share(spent[family] / total)}, {numbers.span(spent[family])}"
            parts.append(
                f'<button type="button" class="pick f-{family}" data-family="{family}" title="{label}" '
                f'aria-label="{label}" style="flex:{spent[family] / total:.4f}">{family} '
                f"{numbers.share(spent[family] / total)}</button>"
            )
    return f'<div class="timebar" role="group" aria-label="time by family of operators">{"".join(parts)}</div>'


def roofline(data: Row) -> str:
    """Every step by flops a byte and flops a second, under the measured limits of the machine."""
    ceilings = data["measured"]["ceilings"]
    copy, rates = ceilings["copy_bytes_per_s"], ceilings["flops_per_s"]
    points = [s for s in data["steps"] if s["flops"] and s["bytes"] and s["us"]]
    if not points:
        return ""
    across = [s["flops"] / s["bytes"] for s in points]
    up = [s["flops"] / s["us"] * 1e6 for s in points]
    used = {s["dtype"] for s in points}
    roofs = {name: value for name, value in rates.items() if name in used} or {"float32": rates["float32"]}
    x0, x1 = _decades(min(across) / 1.5, max([*across, *(r / copy for r in roofs.values())]) * 2)
    y0, y1 = _decades(min(up) / 1.5, max([*up, *roofs.values()]) * 1.2)

    def px(x: float) -> float:
        return _LEFT + (math.log10(x) - x0) / (x1 - x0) * (_W - _LEFT - _RIGHT)

    def py(y: float) -> float:
        return _H - _BOTTOM - (math.log10(y) - y0) / (y1 - y0) * (_H - _TOP - _BOTTOM)

    parts = [_frame("flops a byte", "flops a second")]
    for d in range(x0, x1 + 1):
        parts.append(_tick_x(px(10.0**d), f"{10.0**d:g}"))
    for d in range(y0, y1 + 1):
        parts.append(_tick_y(py(10.0**d), numbers.rate(10.0**d, "flop").removesuffix("/s")))
    for name, rate in roofs.items():
        knee = rate / copy
        low = max(10.0**x0, 10.0**y0 / copy)
        parts.append(
            f'<path class="roof" d="M{px(low):.1f} {py(low * copy):.1f}L{px(knee):.1f} {py(rate):.1f}'
            f'L{px(10.0**x1):.1f} {py(rate):.1f}"/>'
            f'<text class="note" x="{px(10.0**x1) - 4:.1f}" y="{py(rate) - 5:.1f}" text-anchor="end">'
            f"{name} {numbers.rate(rate, 'flop')}</text>"
        )
    parts.append(f'<text class="note" x="{_LEFT + 8}" y="{_TOP + 12}">memory {numbers.rate(copy, "B")}</text>')
    seen = set()
    for step, x, y in zip(points, across, up, strict=True):
        spot = (round(px(x)), round(py(y)), step["op"])
        if len(points) > 600 and spot in seen:
            continue
        seen.add(spot)
        label = html.escape(
            f"{step['index']} {step['op']} ({step['kernel']}): {numbers.span(step['us'])}, "
            f"{step['share_of_ceiling']:.0%} of the ceiling"
        )
        parts.append(
            f'<circle class="pick f-{family_of(step["op"])}" data-step="{step["index"]}" cx="{px(x):.1f}" '
            f'cy="{py(y):.1f}" r="5"><title>{label}</title></circle>'
        )
    return _plot("roofline", parts)


def memory_plot(data: Row) -> str:
    """Bytes that are alive after every step."""
    memory = data["memory"]
    live = memory["live"]
    if not live:
        return ""
    top = max(memory["peak"], memory["arena"], 1) * 1.08
    width = (_W - _LEFT - _RIGHT) / len(live)

    def py(y: float) -> float:
        return _H - _BOTTOM - y / top * (_H - _TOP - _BOTTOM)

    parts = [_frame("step", "bytes alive")]
    for i in range(5):
        parts.append(_tick_y(py(top / 1.08 * i / 4), numbers.size(top / 1.08 * i / 4)))
    for i in range(0, len(live), max(1, len(live) // 8)):
        parts.append(_tick_x(_LEFT + (i + 0.5) * width, str(i)))
    outline = [f"M{_LEFT} {py(0):.1f}"]
    together = -(-len(live) // 1200)  # more steps than that share a pixel
    for i in range(0, len(live), together):
        outline.append(f"V{py(max(live[i : i + together])):.1f}H{_LEFT + min(i + together, len(live)) * width:.1f}")
    parts.append(f'<path class="area" d="{"".join(outline)}V{py(0):.1f}z"/>')
    parts.append(f'<path class="roof" d="M{_LEFT} {py(memory["arena"]):.1f}H{_W - _RIGHT}"/>')
    parts.append(
        f'<text class="note" x="{_W - _RIGHT - 4}" y="{py(memory["arena"]) - 5:.1f}" text-anchor="end">'
        f"arena {numbers.size(memory['arena'])}</text>"
    )
    if len(live) <= 400:
        for i, step in enumerate(data["steps"]):
            label = html.escape(f"{i} {step['op']}: {numbers.size(live[i])} alive")
            parts.append(
                f'<rect class="pick hit" data-step="{i}" x="{_LEFT + i * width:.1f}" y="{_TOP}" width="{width:.2f}" '
                f'height="{_H - _TOP - _BOTTOM}"><title>{label}</title></rect>'
            )
    return _plot("memory over the steps", parts)


def _plot(label: str, parts: Sequence[str]) -> str:
    return f'<svg class="plot" viewBox="0 0 {_W} {_H}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _frame(x: str, y: str) -> str:
    middle = (_H - _BOTTOM + _TOP) / 2
    return (
        f'<path class="axis" d="M{_LEFT} {_TOP}V{_H - _BOTTOM}H{_W - _RIGHT}"/>'
        f'<text class="title" x="{(_W + _LEFT) / 2}" y="{_H - 8}" text-anchor="middle">{x}</text>'
        f'<text class="title" transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">{y}</text>'
    )


def _tick_x(x: float, label: str) -> str:
    return (
        f'<path class="grid" d="M{x:.1f} {_TOP}V{_H - _BOTTOM}"/>'
        f'<text class="tick" x="{x:.1f}" y="{_H - _BOTTOM + 16}" text-anchor="middle">{label}</text>'
    )


def _tick_y(y: float, label: str) -> str:
    return (
        f'<path class="grid" d="M{_LEFT} {y:.1f}H{_W - _RIGHT}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _decades(low: float, high: float) -> tuple[int, int]:
    return math.floor(math.log10(low)), math.ceil(math.log10(high))
