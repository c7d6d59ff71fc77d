"""Figures as elements of an HTML page: SVG where that is small, else PNG, with no other file beside."""

import base64
import io
import re
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure

# Beyond it a PNG is smaller.
MAX_SVG_BYTES = 250_000
OPTIONS: Any = {
    # Text stays text: it can be selected and searched, and takes a tenth of the space of its outlines.
    "svg.fonttype": "none",
    # Names depend on what is drawn alone, so that two reports of the same runs are equal.
    "svg.hashsalt": "report",
    # In pixels: 1,800 epochs need no point each in a width of 500.
    "path.simplify_threshold": 0.3,
}
# What XML has no way to write; a title may hold it.
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def embed(figure: Figure, label: str, prefix: str) -> ElementTree.Element:
    """Turn a figure into an element.

    Args:
        figure: It is drawn, not changed.
        label: What it shows, for those who do not see it.
        prefix: Of all names in its SVG, which must be those of no other picture of the page.

    Returns:
        An svg element, or an img element where its SVG would be large.
    """
    with rc_context(OPTIONS):
        content = _saved(figure, format="svg", metadata={"Date": None})
    if len(content) > MAX_SVG_BYTES:
        return embed_png(_saved(figure, format="png"), label)
    return _plain(ElementTree.fromstring(NO_XML.sub("", content.decode())), label, prefix)


def embed_png(content: bytes, label: str) -> ElementTree.Element:
    """Turn the bytes of a PNG into an img element.

    Args:
        content: Of the file.
        label: What it shows, for those who do not see it.
    """
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return ElementTree.Element("img", {"alt": label, "src": source})


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def _plain(element: ElementTree.Element, label: str, prefix: str) -> ElementTree.Element:
    svg = _renamed(element, prefix)
    view = {"viewBox": svg.attrib["viewBox"], "role": "img", "aria-label": label}
    svg.attrib.clear()
    svg.attrib.update(view)
    # A name that nothing refers to is of no use.
    text = ElementTree.tostring(svg, encoding="unicode")
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    for part in svg.iter():
        if part.get("id") not in used:
            part.attrib.pop("id", None)
    return svg


def _renamed(element: ElementTree.Element, prefix: str) -> ElementTree.Element:
    """Return an element as HTML has it: without namespaces, and without what is said for the whole page."""
    made = ElementTree.Element(element.tag.removeprefix(SVG))
    made.text, made.tail = (text.strip() or None if text else None for text in (element.text, element.tail))
    for name, value in element.items():
        made.set(name.removeprefix(XLINK), _value(name.removeprefix(XLINK), value, prefix))
    # The metadata says nothing; the style is one for all elements of the page.
    made.extend(
        _renamed(child, prefix) for child in element if child.tag not in (f"{SVG}metadata", f"{SVG}style")
    )
    return made


def _value(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    if name == "href":
        return value.replace("#", f"#{prefix}", 1)
    if name == "d":
        # Two digits are a hundredth of a point; line breaks only fill the file.
        return " ".join(re.sub(r"(\.\d\d)\d+", r"\1", value).split())
    if name == "style":
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
    return value.replace("url(#", f"url(#{prefix}")
