"""The plot: a small image, the same for the same answers, that draws any answers there may be."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline.review.distribution import distribution
from batch_pipeline.review.plot import plot

SVG = "{http://www.w3.org/2000/svg}"


def flowers(count=1000):
    chance = random.Random(0)
    return distribution(
        {
            "label": chance.choice(["玫瑰", "郁金香", "<b>&amp; a name that is much longer than its place", ""]),
            "score": chance.random() ** 3,
            "rank": chance.randrange(16),
            "value": None if chance.random() < 0.1 else chance.gauss(1e6, 10),
            "is_open": chance.random() < 0.3,
            "constant": 1.5,
            "text": f"{chance.random()}",
        }
        for _ in range(count)
    )


def drawn(found) -> ET.Element:
    image = plot(found)
    assert image is not None
    assert len(image) <= 40_000
    root = ET.fromstring(image)
    assert root.tag == f"{SVG}svg"
    return root


def texts(panel: ET.Element) -> list[str]:
    return [one.text or "" for one in panel.iter(f"{SVG}text")]


def widths(panel: ET.Element) -> list[float]:
    return [float(one.get("width", "")) for one in panel.iter(f"{SVG}rect")]


def test_it_has_a_panel_for_each_of_the_first_leaves():
    image = drawn(flowers())
    panels = image.findall(f"{SVG}g")
    assert len(panels) == 6
    assert float(image.get("width", "")) < 1100
    assert [texts(panel)[0] for panel in panels] == list(flowers()["leaves"])[:6]
    (label,) = [panel for panel in panels if texts(panel)[0] == "label"]
    assert {"玫瑰", "郁金香", "(empty)", "1,000 values"} < set(texts(label))
    (value,) = [panel for panel in panels if texts(panel)[0] == "value"]
    assert re.fullmatch(r"\d{3} values and \d+\.\d% null", texts(value)[-1])


def test_bars_are_as_long_as_the_shares():
    (panel,) = drawn(distribution([{"x": "a"}] * 3 + [{"x": "b"}])).findall(f"{SVG}g")
    assert texts(panel)[-3:] == ["a", "b", "4 values"]
    first, second = widths(panel)
    assert first == pytest.approx(3 * second, rel=0.01)
    assert "80%" in texts(panel)


def test_a_histogram_has_its_ends_and_its_median():
    (panel,) = drawn(distribution([{"x": number / 10} for number in range(1, 102)])).findall(f"{SVG}g")
    assert {"0.1", "10.1"} < set(texts(panel))
    (median,) = [line for line in panel.iter(f"{SVG}line") if line.get("stroke-dasharray")]
    boxes = [float(box.get("x", "")) for box in panel.iter(f"{SVG}rect")]
    assert min(boxes) < float(median.get("x1", "")) < max(boxes)
    heights = [float(box.get("height", "")) for box in panel.iter(f"{SVG}rect")]
    assert max(heights) < 2 * min(heights)


def test_values_that_are_all_the_same():
    (panel,) = drawn(distribution([{"x": 0.5}, {"x": 0.5}])).findall(f"{SVG}g")
    assert {"0.5", "100%"} < set(texts(panel))


def test_the_same_answers_make_the_same_image():
    assert plot(flowers()) == plot(flowers())


@pytest.mark.parametrize("answers", [[], [{}], [None], [{"x": None}], [{"x": 1, "y": "a"}]])
def test_nothing_to_draw(answers):
    assert plot(distribution(answers)) is None


@settings(max_examples=100, deadline=None)
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
    found = distribution(answers)
    if plot(found) is not None:
        for one in drawn(found).iter():
            assert "nan" not in one.attrib.values()
            assert "inf" not in one.attrib.values()


def test_nothing_heavy_is_loaded_for_it():
    code = (
        "import sys\n"
        "from batch_pipeline.review import plot, report\n"
        "from batch_pipeline.review.distribution import distribution\n"
        "assert plot.plot(distribution([{'x': 'a'}, {'x': 'a'}])).startswith(b'<')\n"
        "assert not {'jsonschema', 'numpy', 'polars', 'PIL'} & set(sys.modules), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
