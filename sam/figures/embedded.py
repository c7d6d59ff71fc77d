"""Figures as elements of an HTML page, without other files: SVG if that is small, else PNG."""

import base64
import io
import re
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

# For larger SVGs, a PNG is smaller.
MAX_SVG_BYTES = 250_000
OPTIONS: Any = {
    # Text stays text, not outlines: it can be selected and searched, and needs a tenth of the bytes.
    "svg.fonttype": "none",
    # In pixels. A line of 1,800 epochs in a width of 500 pixels needs fewer points.
    "path.simplify_threshold": 0.3,
}
# Characters that XML does not allow, but that a title may contain.
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
# The metadata is of no use, and the style would apply to all elements of the page.
LEFT_OUT = (f"{SVG}metadata", f"{SVG}style")


def embed(figure: Figure, label: str, name: str) -> Markup:
    """Turn a figure into an element.

    Args:
        figure: The figure; it stays unchanged.
        label: What the figure shows, for screen readers.
        name: A name that no other picture of the page has. The ids in the SVG depend on it, so that they are
            unique on the page and the same in every report of the same runs.

    Returns:
        An svg element, or an img element if the SVG would be large.
    """
    with rc_context({**OPTIONS, "svg.hashsalt": name}):
        content = _saved(figure, format="svg", metadata={"Date": None})
    if len(content) > MAX_SVG_BYTES:
        return embed_png(_saved(figure, format="png"), label)
    svg = ElementTree.fromstring(NO_XML.sub("", content.decode()))
    # Ids without a reference are removed.
    used = set(re.findall(rb'(?:url\(|href=")#([^")]+)', content))
    _clean(svg, {name.decode() for name in used})
    svg.attrib = {"viewBox": svg.attrib["viewBox"], "role": "img", "aria-label": label}
    # ElementTree has escaped all texts and attributes.
    return Markup(ElementTree.tostring(svg, encoding="unicode"))  # nosec B704


def embed_png(content: bytes, label: str) -> Markup:
    """Turn the bytes of a PNG into an img element.

    Args:
        content: The content of the PNG file.
        label: What the picture shows, for screen readers.
    """
    source = base64.b64encode(content).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(label, source)


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def _clean(element: ElementTree.Element, used: set[str]) -> None:
    """Remove namespaces, unused ids and unneeded characters from an element and its children."""
    element.tag = element.tag.removeprefix(SVG)
    element.text, element.tail = (
        text.strip() or None if text else None for text in (element.text, element.tail)
    )
    element.attrib = {
        name.removeprefix(XLINK): _value(name, value)
        for name, value in element.items()
        if name != "id" or value in used
    }
    element[:] = [child for child in element if child.tag not in LEFT_OUT]
    for child in element:
        _clean(child, used)


def _value(name: str, value: str) -> str:
    if name == "d":
        # Two decimal places are enough, a hundredth of a point; line breaks are not needed.
        return " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split())
    # Without font-family, the SVG uses the font of the page.
    return re.sub(r"font-family: [^;]*;? ?", "", value) if name == "style" else value
