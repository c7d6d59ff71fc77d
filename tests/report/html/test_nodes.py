"""Tests of sam/report/html/nodes.py: Python's own parser of HTML is the second reader."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from sam.report.html.nodes import node, to_html


class _Reader(HTMLParser):
    """Collects what a parser sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


# The parser takes other ends of lines and the empty letter for something else.
TEXTS = st.text(st.characters(exclude_characters="\r\0", codec="utf-8"))


@given(TEXTS, TEXTS)
def test_text_and_attributes_stay_what_they_are(text: str, attribute: str) -> None:
    read = _Reader(to_html(node("p", text, title=attribute)))
    assert read.tags == [("p", {"title": attribute})]
    assert "".join(read.texts) == text


def test_content_is_kept_in_order() -> None:
    made = node("p", "a", node("b", "c"), "d", None, [node("i"), "e", "f"])
    assert to_html(made) == "<p>a<b>c</b>d<i></i>ef</p>"


def test_attributes_have_hyphens_and_may_be_words_of_python() -> None:
    assert (
        to_html(node("div", class_="x", aria_label='"<&'))
        == '<div class="x" aria-label="&quot;&lt;&amp;"></div>'
    )


def test_blocks_are_indented_and_lines_are_not_broken() -> None:
    made = node("ul", node("li", node("b", "a"), "c"), node("li", "d"))
    assert to_html(node("section", made)).splitlines() == [
        "<section>",
        "  <ul>",
        "    <li><b>a</b>c</li>",
        "    <li>d</li>",
        "  </ul>",
        "</section>",
    ]


def test_void_elements_have_no_end_and_scripts_are_not_escaped() -> None:
    assert to_html(node("meta", charset="utf-8")) == '<meta charset="utf-8">'
    assert to_html(node("script", "a < b && c")) == "<script>a < b && c</script>"
