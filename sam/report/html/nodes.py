"""HTML as a tree of elements: what is put in as text can never become markup."""

from collections.abc import Iterable
from html import escape
from xml.etree.ElementTree import Element

Content = str | Element | None
# Their children stand on lines of their own, so that the file can be read; all others take one line.
BLOCKS = frozenset(
    "html head body header main footer nav section ul ol dl div details figure table thead tbody".split()
)
VOID = frozenset("meta link img br hr input".split())
# Their content is not text to HTML; it is written as it is, and never comes from a run.
RAW = frozenset(["style", "script"])


def node(tag: str, *content: Content | Iterable[Content], **attributes: str) -> Element:
    """Make an element.

    Args:
        tag: Its name.
        content: Texts and elements in their order, alone or in lists; None is left out.
        attributes: With one underscore for a hyphen; a last underscore is dropped, as in class_.
    """
    made = Element(tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    for item in content:
        for one in [item] if item is None or isinstance(item, str | Element) else item:
            _append(made, one)
    return made


def to_html(element: Element, depth: int = 0) -> str:
    """Write an element and all that it holds, indented by its depth.

    Args:
        element: The element; its texts and attributes are escaped.
        depth: How many levels to indent it.
    """
    attributes = "".join(f' {name}="{_quoted(value)}"' for name, value in element.attrib.items())
    opening = f"<{element.tag}{attributes}>"
    if element.tag in VOID:
        return opening
    closing = f"</{element.tag}>"
    if element.tag in RAW:
        return f"{opening}{element.text or ''}{closing}"
    if element.tag in BLOCKS and len(element):
        start = "\n" + "  " * (depth + 1)
        lines = [escape(element.text, quote=False)] if element.text else []
        for child in element:
            lines += [to_html(child, depth + 1) + _text(child.tail)]
        return f"{opening}{start}{start.join(lines)}\n{'  ' * depth}{closing}"
    inside = "".join(to_html(child, depth) + _text(child.tail) for child in element)
    return f"{opening}{_text(element.text)}{inside}{closing}"


def _append(parent: Element, content: Content) -> None:
    if content is None or content == "":
        return
    if isinstance(content, Element):
        parent.append(content)
    elif len(parent):
        parent[-1].tail = (parent[-1].tail or "") + content
    else:
        parent.text = (parent.text or "") + content


def _text(text: str | None) -> str:
    return escape(text, quote=False) if text else ""


def _quoted(value: str) -> str:
    return escape(value, quote=False).replace('"', "&quot;")
