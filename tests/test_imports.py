"""The rooms of the house and who may enter which: the one place that says so."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROOMS = {
    "setting": set(),
    "process_error": set(),
    "launch_signals": {"stops"},
    "analysis_config": {"setting"},
    "foreign_files": set(),
    "files": set(),
    "checksums": {"foreign_files"},
    "config": {"analysis_config", "setting"},
    "check": {"analysis_config", "config"},
    "run_directory": {"check", "checksums", "config", "files", "foreign_files"},
    "cli": {"check", "config"},
    "stops": set(),
    "composer": {"cli", "run_directory"},
    "sweep": {"cli", "composer", "config", "launch", "run_directory"},
    "perturbation": set(),
    "models": {"foreign_files"},
    "data": {"files", "foreign_files", "stops"},
    "logs": {"files"},
    "report": {"checksums", "config", "foreign_files"},
    "figures": {"config", "report"},
    "analysis": {"perturbation"},
    "optim": {"perturbation"},
    "training": {"files", "foreign_files", "logs", "optim", "perturbation", "process_error"},
    "build": {"config", "data", "models", "logs", "optim", "run_directory", "training", "perturbation"},
    "build_data": {"config", "data", "models", "training"},
    "result": {"config", "run_directory"},
    "trained": {"build", "build_data", "config", "data", "run_directory", "training"},
    "subject": {"analysis", "analysis_config", "build_data", "config", "data", "trained", "training"},
    "analyses": {
        "analysis",
        "analysis_config",
        "build",
        "build_data",
        "config",
        "files",
        "foreign_files",
        "report",
        "run_directory",
        "subject",
        "trained",
        "training",
    },
    "analyse": {
        "analyses",
        "analysis_config",
        "build",
        "config",
        "figures",
        "files",
        "logs",
        "report",
        "result",
        "run_directory",
        "subject",
        "trained",
        "training",
    },
    "launch": {"config", "files", "launch_signals", "process_error", "stops", "training", "worker"},
    "plan": {"cli", "composer", "config", "report", "run_directory"},
    "figure_plan": {"cli", "composer", "config", "plan", "report", "run_directory"},
    "figure_presets": {"figure_plan"},
    "trial": {"build", "build_data", "config", "data", "result", "training"},
    "worker": {
        "analyse",
        "build",
        "build_data",
        "config",
        "data",
        "logs",
        "result",
        "run_directory",
        "stops",
        "subject",
        "trained",
        "training",
    },
}
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
    assert {room_of(path) for path in SOURCES} == {*ROOMS, "__init__"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_one_way_street(path):
    room = room_of(path)
    for other in imported_rooms(path):
        assert other == room or other in ROOMS.get(room, set()), f"{room} imports {other}"


@pytest.mark.parametrize(
    "module",
    [
        "sam.cli",
        "sam.config",
        "sam.run_directory",
        "sam.sweep",
        "sam.launch",
        "sam.report.runs",
        "sam.report.html",
        "sam.plan",
        "sam.figure_presets",
        "sam.figures.catalogue",
    ],
)
def test_module_needs_no_torch(module):
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
