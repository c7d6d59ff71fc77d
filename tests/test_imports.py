"""The rooms of the house and who may enter which: the one place that says so."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROOMS = {
    "__init__": {"optim"},
    "system": set(),
    "optim": set(),
    "config": {"system"},
    "data": {"system"},
    "models": {"system"},
    "logs": {"system"},
    "training": {"optim", "system"},
    "record": {"config", "system"},
    "paper": {"config", "record", "system"},
    "report": {"paper", "record"},
    "figures": {"paper", "record", "report"},
    "build": {"config", "data", "logs", "models", "optim", "record", "system", "training"},
    "analysis": {"build", "config", "data", "optim", "record", "system", "training"},
    "run": {
        "analysis",
        "build",
        "config",
        "data",
        "figures",
        "logs",
        "paper",
        "record",
        "system",
        "training",
    },
}
# Rooms that load no torch, so that help, faults, ended runs and reports cost no start-up time.
WITHOUT_TORCH = ("config", "record", "paper", "report", "figures")
SOURCES = sorted((ROOT / "sam").rglob("*.py"))


def room_of(path):
    return path.relative_to(ROOT / "sam").parts[0].removesuffix(".py")


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            own = node.module == "sam"
            names = [f"sam.{alias.name}" for alias in node.names] if own else [node.module]
        yield from (name.split(".")[1] for name in names if name.startswith("sam."))


def test_every_room_has_a_rule():
    assert {room_of(path) for path in SOURCES} == set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_one_way_street(path):
    room = room_of(path)
    for other in imported_rooms(path):
        assert other == room or other in ROOMS[room], f"{room} imports {other}"


MODULES = [
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for path in SOURCES
    if room_of(path) in WITHOUT_TORCH
]


def test_rooms_that_need_no_torch_load_none():
    modules = [*MODULES, "sam.run.sweep", "sam.run.launch"]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
