"""Tests of sam/figures/embedded.py."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from sam.figures.embedded import MAX_SVG_BYTES, OPTIONS, embed


def _figure(num_points: int = 10, label: str = "a <b> & c") -> Figure:
    figure = Figure((4, 3))
    axis = figure.subplots()
    noise = np.random.default_rng(0).random(num_points)
    axis.plot(noise, marker="o", label=label)
    axis.fill_between(range(num_points), noise - 1, noise + 1, alpha=0.2)
    axis.legend()
    return figure


def _svg(figure: Figure, label: str = "x", name: str = "p") -> ElementTree.Element:
    return ElementTree.fromstring(embed(figure, label, name))


def test_embed_makes_an_svg_that_says_what_it_shows() -> None:
    svg = _svg(_figure(), "what it shows")
    assert svg.tag == "svg"
    assert (svg.get("role"), svg.get("aria-label")) == ("img", "what it shows")
    assert svg.get("viewBox") == "0 0 288 216"
    # HTML has no namespace prefixes, and a style element would apply to the whole page.
    tags = {part.tag for part in svg.iter()}
    assert not any("{" in tag for tag in tags)
    assert not tags & {"style", "metadata"}
    assert "a <b> & c" in ["".join(text.itertext()) for text in svg.iter("text")]


@pytest.mark.filterwarnings("ignore:Glyph")
def test_embed_drops_what_xml_does_not_allow() -> None:
    svg = _svg(_figure(label="a\x01b\x1f"))
    assert "ab" in ["".join(text.itertext()) for text in svg.iter("text")]


def _names(svg: ElementTree.Element) -> tuple[set[str], set[str]]:
    text = ElementTree.tostring(svg, encoding="unicode")
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text))
    return {part.attrib["id"] for part in svg.iter() if "id" in part.attrib}, {a or b for a, b in used}


def test_embed_shares_no_name_between_pictures() -> None:
    (first, used), (second, _) = (_names(_svg(_figure(), name=name)) for name in "ab")
    assert first == used != set()
    assert not first & second


def test_embed_moves_no_point_by_more_than_a_hundredth() -> None:
    figure = _figure()
    buffer = io.BytesIO()
    with rc_context(OPTIONS):
        figure.savefig(buffer, format="svg")

    def numbers(root: ElementTree.Element) -> list[float]:
        paths = [part.get("d", "") for part in root.iter() if part.tag.endswith("path")]
        return [float(word) for path in paths for word in re.findall(r"-?\d+\.?\d*", path)]

    found = numbers(_svg(figure))
    assert len(found) > 10
    assert np.allclose(found, numbers(ElementTree.fromstring(buffer.getvalue())), rtol=0, atol=0.0101)


def test_embed_of_a_large_drawing_is_a_png() -> None:
    figure = Figure((4, 3))
    axis = figure.subplots()
    for shift in range(40):
        axis.plot(np.random.default_rng(shift).random(1000) + shift)
    image = ElementTree.fromstring(str(embed(figure, "what <it> shows", "p")).replace(">", "/>"))
    assert image.tag == "img"
    assert image.get("alt") == "what <it> shows"
    head, _, content = (image.get("src") or "").partition(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (400, 300)
    assert len(content) < MAX_SVG_BYTES


def test_embed_repeats_itself() -> None:
    first, second = (embed(_figure(), "x", "p") for _ in range(2))
    assert first == second
