"""Tests of sam/record/config_file.py: OmegaConf is the oracle."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sam.record.config_file import load_config

VALUES = (
    "1e-5 1e-05 5e-4 .5 1_000 yes on Off ~ null true 2026-01-01 0o7 010 0x1f 0b11 12:30:45 1:30.5 .inf -.INF "
    ".nan 1. 1.e5 1.5e+3 +3 -0 '1' ${oc.env:HOME} ??? [1,2.0,x]"
).split(" ")


def _omegaconf(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


@pytest.mark.parametrize("value", [*VALUES, "2026-01-01 10:00:00", "{b: {c: [x]}}", "a b", "é", ""])
def test_load_config_reads_a_value_as_omegaconf_does(tmp_path: Path, value: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"a: {value}\n", encoding="utf-8")
    # nan is equal to nothing, and 1 is equal to True.
    assert repr(load_config(path)) == repr(_omegaconf(path))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab1e-.:_ #é\n", max_size=8)
KEYS = st.text("abc1_", min_size=1, max_size=4)


@given(st.dictionaries(KEYS, LEAVES | st.dictionaries(KEYS, LEAVES, max_size=3), max_size=4))
def test_load_config_reads_what_omegaconf_saved(tmp_path_factory: Any, config: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    OmegaConf.save(OmegaConf.create(config), path)
    assert repr(load_config(path)) == repr(_omegaconf(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a: &a [*a]", "alias"),
        ("a: &a {b: *a}", "alias"),
        ("a: 1\na: 2", "duplicate key a"),
        ("a: {b: 1, b: 2}", "duplicate key b"),
        ("? [1, 2]\n: 3", "unhashable key"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_load_config_refuses_what_is_no_config(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(Exception, match=reason):
        load_config(path)


@pytest.mark.parametrize(
    "text",
    [
        "# Made by: seed={0}\na: 1\nseed: {0}\nb: [1, 2]\n",
        "a: 'x\nseed: {0}\n'\n",
        "a: |\n  seed: {0}\nseed: {0}\n",
        "seed: {0}\nother:\n  seed: {0}\n",
        "seed: 0{0}\n",
        "'seed': {0}\n",
    ],
)
def test_load_config_reads_each_seed_of_a_condition_as_omegaconf_does(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    for seed in (3, 4, 12):
        path.write_text(text.format(seed), encoding="utf-8")
        assert repr(load_config(path)) == repr(_omegaconf(path))


def test_load_config_names_the_line_of_a_fault_below_comments(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("# one\n# two\nseed: 1\na: [\n")
    with pytest.raises(yaml.YAMLError, match="line 5"):
        load_config(path)


def test_load_config_parses_the_seeds_of_a_condition_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []
    load = yaml.load
    monkeypatch.setattr(yaml, "load", lambda text, **more: parsed.append(text) or load(text, **more))
    for seed in range(3):
        path = tmp_path / f"{seed}.yaml"
        path.write_text(f"# Made by: seed={seed}\nunique_to_this_test: 1\nseed: {seed}\n", encoding="utf-8")
        assert load_config(path) == {"unique_to_this_test": 1, "seed": seed}
    assert len(parsed) == 1
