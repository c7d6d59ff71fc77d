"""Tests of sam/report/html/shelves.py."""

from sam.report.html.nodes import node, to_html
from sam.report.html.shelves import MANY, Block, shelve


def _blocks(num_blocks: int) -> list[Block]:
    """Blocks of two models in turn."""
    models = ("wrn_28_10", "resnet8")
    return [
        Block(f"cifar10, {models[place % 2]}, basic, epochs {place}", [node("h3", f"title {place}"), None])
        for place in range(num_blocks)
    ]


def test_few_blocks_stand_one_below_the_other() -> None:
    made = shelve(_blocks(MANY))
    assert [to_html(part) for part in made] == [f"<h3>title {place}</h3>" for place in range(MANY)]


def test_many_blocks_lie_on_a_closed_shelf_for_each_dataset_and_model() -> None:
    made = shelve(_blocks(MANY + 1))
    assert [part.get("class") for part in made] == ["shelf", "shelf"]
    assert all(part.tag == "details" and "open" not in part.attrib for part in made)
    text = [to_html(part) for part in made]
    assert f"<summary>cifar10, wrn_28_10 ({MANY // 2 + 1})</summary>" in text[0]
    assert f"<summary>cifar10, resnet8 ({MANY // 2})</summary>" in text[1]
    assert text[0].index("title 0") < text[0].index(f"title {MANY}")
    assert text[0].count('<div class="block">') == MANY // 2 + 1
