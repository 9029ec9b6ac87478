"""A distribution drawn as a PNG image. The only room that knows the plotting library, which loads when it is asked."""

from __future__ import annotations

import io
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from batch_pipeline.review.distribution import STEPS, Distribution
from batch_pipeline.review.stability import share_below

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LEAVES = 6
_BARS = 25
_LABELS = 10
_CHARACTERS = 22
_COLUMNS = 3
_WIDTH, _HEIGHT, _DPI = 3.6, 2.5, 96
_COLORS = 32
_PAPER, _INK, _FILL, _PALE = "#ffffff", "#1f2937", "#4f43dd", "#c9c5f5"
# Whatever of these is installed; the first that has a character draws it.
_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei")
_MORE_FONTS = ("WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei", "SimHei", "AR PL UMing CN", "Droid Sans Fallback")


def plot(found: Distribution) -> bytes | None:
    """A PNG image of the first leaves, on paper of its own, so that it reads on light and dark pages; some 15 kB.

    None where there is nothing to draw: one value is no distribution. The library's own settings and state are left as
    they are.
    """
    leaves = [(path, leaf) for path, leaf in found["leaves"].items() if leaf["count"] > 1][:MOST_LEAVES]
    if not leaves:
        return None
    from matplotlib import style
    from matplotlib.figure import Figure
    from PIL import Image

    columns = min(_COLUMNS, len(leaves))
    rows = -(-len(leaves) // columns)
    with style.context(_settings(), after_reset=True), warnings.catch_warnings():
        # A machine may have no font for a label's script; boxes stand there, and need not be told of one by one.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = Figure((_WIDTH * columns, _HEIGHT * rows), dpi=_DPI, facecolor=_PAPER, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place < len(leaves):
                _draw(axes, *leaves[place])
            else:
                axes.set_axis_off()
        drawn, image = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, format="png")
    with Image.open(drawn) as pixels:
        # So few colours need a fraction of the bytes.
        pixels.convert("RGB").quantize(_COLORS).save(image, "PNG", optimize=True)
    return image.getvalue()


def _settings() -> dict[str, Any]:
    """Names are never read as formulas, whatever `$` they have."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return {
        "font.family": [name for name in _FONTS + _MORE_FONTS if name in installed],
        "font.size": 8,
        "text.parse_math": False,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def _draw(axes: Axes, path: str, leaf: dict[str, Any]) -> None:
    axes.set_title(_cut(path, 2 * _CHARACTERS), fontsize=9, loc="left")
    if leaf["kind"] == "numbers":
        _histogram(axes, leaf)
    else:
        _bars(axes, leaf)
    null = leaf["null"] / (leaf["count"] + leaf["null"])
    axes.set_xlabel(f"{leaf['count']:,} values" + (f" and {null:.1%} null" if null else ""))


def _histogram(axes: Axes, leaf: dict[str, Any]) -> None:
    """A dotted line marks the median."""
    low, high = leaf["quantiles"][0], leaf["quantiles"][-1]
    width = (high - low) / _BARS
    if not width:
        axes.bar([low], [100.0], color=_FILL, width=max(abs(low), 1) / 10)
    else:
        edges = [low + width * step for step in range(_BARS)] + [high]
        below = [0.0, *(share_below(leaf, edge) for edge in edges[1:])]
        axes.bar(edges[:-1], [100 * (b - a) for a, b in pairwise(below)], width=width * 0.94, align="edge", color=_FILL)
        axes.axvline(leaf["quantiles"][STEPS // 2], color=_INK, linewidth=1, linestyle=":")
    axes.yaxis.set_major_formatter("{x:g}%")


def _bars(axes: Axes, leaf: dict[str, Any]) -> None:
    shown = list(leaf["counts"].items())[:_LABELS]
    if leaf["kind"] == "integers":
        shown.sort(key=lambda item: int(item[0]))
    labels = [_cut(label, _CHARACTERS) or "(empty)" for label, _ in shown]
    shares = [100 * count / leaf["count"] for _, count in shown]
    colors = [_FILL] * len(shown)
    if rest := leaf["count"] - sum(count for _, count in shown):
        labels, shares, colors = [*labels, "(others)"], [*shares, 100 * rest / leaf["count"]], [*colors, _PALE]
    axes.barh(range(len(labels)), shares, color=colors, height=0.75)
    axes.set_yticks(range(len(labels)), labels)
    axes.xaxis.set_major_formatter("{x:g}%")
    axes.invert_yaxis()


def _cut(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
