"""The plot: a small image, the same for all, that leaves the library's settings alone."""

from __future__ import annotations

import io
import logging
import os
import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batch_pipeline.review.distribution import distribution
from batch_pipeline.review.plot import plot


def flowers(count=1000):
    chance = random.Random(0)
    return distribution(
        {
            "label": chance.choice(["玫瑰", "郁金香", "$x^2$ & a name that is much longer than its place", ""]),
            "score": chance.random() ** 3,
            "rank": chance.randrange(16),
            "value": None if chance.random() < 0.1 else chance.gauss(1e6, 10),
            "is_open": chance.random() < 0.3,
            "constant": 1.5,
            "text": f"{chance.random()}",
        }
        for _ in range(count)
    )


def test_it_is_a_small_png():
    image = plot(flowers())
    assert image is not None
    assert len(image) <= 40_000
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.format == "PNG"
        assert opened.width < 1100
        colors = opened.convert("RGB").getcolors(1 << 24)
    assert colors is not None
    assert (255, 255, 255) in [color for _, color in colors]
    assert len(colors) > 10


def test_it_draws_what_the_distribution_says():
    assert plot(distribution([{"x": "a"}, {"x": "b"}])) != plot(distribution([{"x": "a"}, {"x": "a"}]))
    assert plot(distribution([{"x": 0.5}, {"x": 0.5}])) is not None
    assert plot(flowers()) == plot(flowers())


@pytest.mark.parametrize("answers", [[], [{}], [None], [{"x": None}], [{"x": 1, "y": "a"}]])
def test_nothing_to_draw(answers):
    assert plot(distribution(answers)) is None


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=4),
            st.text(max_size=40) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60),
            max_size=3,
        ),
        max_size=30,
    )
)
def test_any_distribution_can_be_drawn(answers):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = plot(distribution(answers))
    assert image is None or len(image) <= 40_000


def test_characters_without_a_font_make_no_noise(caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        plot(flowers())
    assert not caplog.records


def test_chinese_labels_are_drawn_where_a_font_has_them(tmp_path):
    from matplotlib import font_manager

    label = distribution([{"label": "玫"}, {"label": "玫"}])
    boxes = plot(label)
    font_manager.fontManager.addfont(chinese_font(tmp_path / "font.ttf"))
    try:
        assert plot(label) != boxes
    finally:
        font_manager.fontManager.ttflist.pop()


def chinese_font(path: Path) -> Path:
    """A font of one Chinese character: a filled square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "rose"])
    builder.setupCharacterMap({ord("玫"): "rose"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "rose": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "rose": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Noto Sans CJK SC", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def test_settings_of_the_user_are_neither_used_nor_changed():
    import matplotlib as mpl

    expected = plot(flowers())
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "figure.dpi": 30, "savefig.dpi": 30}):
        before = dict(mpl.rcParams)
        assert plot(flowers()) == expected
        assert dict(mpl.rcParams) == before


def test_it_works_where_there_is_no_home_and_loads_the_library_only_then():
    code = (
        "import sys\n"
        "from batch_pipeline.review import plot, report\n"
        "from batch_pipeline.review.distribution import distribution\n"
        "assert not {'matplotlib', 'jsonschema', 'numpy', 'polars'} & set(sys.modules), sys.modules.keys()\n"
        "assert plot.plot(distribution([{'x': 'a'}, {'x': 'a'}])).startswith(b'\\x89PNG')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "XDG"))}
    subprocess.run([sys.executable, "-c", code], check=True, env={**variables, "HOME": "/dev/null"}, timeout=120)
