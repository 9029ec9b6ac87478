"""A distribution drawn as an SVG image: a panel for each of the first leaves."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

from batch_pipeline.review.distribution import STEPS, Distribution
from batch_pipeline.review.stability import share_below

MOST_LEAVES = 6
_BARS = 25
_LABELS = 10
_CHARACTERS = 20
_COLUMNS = 3
_WIDTH, _HEIGHT = 340.0, 240.0
"""Of a panel, in pixels; what is drawn leaves room around itself for titles and labels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 48.0, 12.0, 30.0, 46.0
_NAMES = 140.0
"""What the names of bars take at the left, in place of _LEFT."""
_TICKS = 5
_PAPER, _INK, _FILL, _PALE, _LINE = "#ffffff", "#1f2937", "#4f43dd", "#c9c5f5", "#d1d5db"
_STYLE = f"text{{font:11px system-ui,sans-serif;fill:{_INK}}}.title{{font-size:12px;font-weight:600}}"
_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def plot(found: Distribution) -> bytes | None:
    """An SVG image of the first leaves, on paper of its own, so that it reads on light and dark pages; some 10 kB.

    None where there is nothing to draw: one value is no distribution.
    """
    leaves = [(path, leaf) for path, leaf in found["leaves"].items() if leaf["count"] > 1][:MOST_LEAVES]
    if not leaves:
        return None
    columns = min(_COLUMNS, len(leaves))
    width, height = _WIDTH * columns, _HEIGHT * -(-len(leaves) // columns)
    image = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", width=f"{width:g}", height=f"{height:g}")
    ET.SubElement(image, "style").text = _STYLE
    _box(image, 0, 0, width, height, _PAPER)
    for place, (path, leaf) in enumerate(leaves):
        at = f"translate({_WIDTH * (place % columns):g} {_HEIGHT * (place // columns):g})"
        _panel(ET.SubElement(image, "g", transform=at), path, leaf)
    drawn: bytes = ET.tostring(image, encoding="utf-8")
    return drawn


def _panel(panel: ET.Element, path: str, leaf: dict[str, Any]) -> None:
    _text(panel, 12, 18, _cut(path, 2 * _CHARACTERS), kind="title")
    if leaf["kind"] == "numbers":
        _histogram(panel, leaf)
    else:
        _bars(panel, leaf)
    null = leaf["null"] / (leaf["count"] + leaf["null"])
    values = f"{leaf['count']:,} values" + (f" and {null:.1%} null" if null else "")
    _text(panel, _WIDTH / 2, _HEIGHT - 10, values, anchor="middle")


def _histogram(panel: ET.Element, leaf: dict[str, Any]) -> None:
    """A dotted line marks the median."""
    low, median, high = (leaf["quantiles"][step] for step in (0, STEPS // 2, -1))
    if low == high:
        edges, shares = [low - 1, low, low + 1, low + 2], [0.0, 100.0, 0.0]
    else:
        edges = [low + (high - low) * (step / _BARS) for step in range(_BARS)] + [high]
        shares = [100 * (b - a) for a, b in pairwise([0.0, *(share_below(leaf, edge) for edge in edges[1:])])]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    step = (right - _LEFT) / len(shares)
    for tick, share in _ticks(max(shares)):
        y = bottom - (bottom - _TOP) * share
        _line(panel, _LEFT, y, right, y)
        _text(panel, _LEFT - 5, y + 4, f"{tick:g}%", anchor="end")
    most = _ceiling(max(shares))
    for number, share in enumerate(shares):
        height = (bottom - _TOP) * share / most
        _box(panel, _LEFT + step * (number + 0.03), bottom - height, step * 0.94, height, _FILL)
    if low == high:
        _text(panel, (_LEFT + right) / 2, bottom + 15, f"{low:.6g}", anchor="middle")
        return
    x = _LEFT + (right - _LEFT) * ((median - low) / (high - low))
    _line(panel, x, _TOP, x, bottom, color=_INK, dashes="1 3")
    _text(panel, _LEFT, bottom + 15, f"{low:.6g}")
    _text(panel, right, bottom + 15, f"{high:.6g}", anchor="end")


def _bars(panel: ET.Element, leaf: dict[str, Any]) -> None:
    shown = list(leaf["counts"].items())[:_LABELS]
    if leaf["kind"] == "integers":
        shown.sort(key=lambda item: int(item[0]))
    bars = [(_cut(label, _CHARACTERS) or "(empty)", count, _FILL) for label, count in shown]
    if rest := leaf["count"] - sum(count for _, count in shown):
        bars.append(("(others)", rest, _PALE))
    left, right, bottom = _NAMES, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    shares = [100 * count / leaf["count"] for _, count, _ in bars]
    for tick, share in _ticks(max(shares)):
        x = left + (right - left) * share
        _line(panel, x, _TOP, x, bottom)
        _text(panel, x, bottom + 15, f"{tick:g}%", anchor="middle")
    most = _ceiling(max(shares))
    step = (bottom - _TOP) / len(bars)
    for number, ((label, _, color), share) in enumerate(zip(bars, shares, strict=True)):
        y = _TOP + step * number
        _text(panel, left - 6, y + step / 2 + 4, label, anchor="end")
        _box(panel, left, y + step * 0.12, (right - left) * share / most, step * 0.76, color)


def _ticks(largest: float) -> Iterator[tuple[float, float]]:
    """Round values from 0 on, each with its place between 0 and 1 on the axis."""
    step, most = _step(largest), _ceiling(largest)
    for number in range(round(most / step) + 1):
        yield step * number, step * number / most


def _step(largest: float) -> float:
    raw = (largest or 1.0) / (_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))


def _ceiling(largest: float) -> float:
    """Where the axis ends."""
    step = _step(largest)
    return step * max(1, math.ceil(largest / step - 1e-9))


def _box(parent: ET.Element, x: float, y: float, width: float, height: float, color: str) -> None:
    numbers = {"x": x, "y": y, "width": width, "height": height}
    ET.SubElement(parent, "rect", {name: f"{value:.1f}" for name, value in numbers.items()} | {"fill": color})


def _line(
    parent: ET.Element, x1: float, y1: float, x2: float, y2: float, *, color: str = _LINE, dashes: str = ""
) -> None:
    numbers = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    more = {"stroke": color} | ({"stroke-dasharray": dashes} if dashes else {})
    ET.SubElement(parent, "line", {name: f"{value:.1f}" for name, value in numbers.items()} | more)


def _text(parent: ET.Element, x: float, y: float, text: str, *, anchor: str = "", kind: str = "") -> None:
    more = ({"text-anchor": anchor} if anchor else {}) | ({"class": kind} if kind else {})
    ET.SubElement(parent, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}"} | more).text = text


def _cut(text: str, most: int) -> str:
    text = " ".join(_NOT_IN_XML.sub("\ufffd", text).split())
    return text if len(text) <= most else text[: most - 1] + "…"
