"""Tests of the shell scripts, in copies of the repository and with a fake Python that installs nothing."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Answers --version, -c (the version check), -m venv and -m pip like Python, and logs the arguments of pip.
STAND_IN = """#!/bin/sh
case "$1" in
--version) echo "Python {version}" ;;
-c) exit {refused} ;;
-m)
    if [ "$2" = venv ]; then
        mkdir -p "$4/bin" && cp "$0" "$4/bin/python"
    elif [ "$3" != --version ]; then
        echo "$@" >> "$PIP_LOG"
        exit {pip_code}
    fi ;;
esac
"""


@pytest.fixture
def scripts(tmp_path):
    """Copy the repository to a folder with a space; return it and a function that runs its setup.sh."""
    repository = tmp_path / "a folder"
    (repository / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup.sh", repository / "scripts")
    (repository / "requirements.txt").write_text("torch\n")

    def run(version="3.12.1", refused=0, pip_code=0):
        stand_in = tmp_path / "python-stand-in"
        stand_in.write_text(STAND_IN.format(version=version, refused=refused, pip_code=pip_code))
        stand_in.chmod(0o755)
        environment = {**os.environ, "PYTHON": str(stand_in), "PIP_LOG": str(tmp_path / "pip.log")}
        return subprocess.run(
            ["bash", str(repository / "scripts" / "setup.sh"), "requirements.txt"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    return repository, run


def pip_calls(tmp_path):
    log = tmp_path / "pip.log"
    return log.read_text().splitlines() if log.exists() else []


def test_setup_installs_once_in_a_path_with_a_space_from_another_folder(scripts, tmp_path):
    repository, run = scripts
    assert run().returncode == 0
    assert run().returncode == 0
    assert len(pip_calls(tmp_path)) == 1
    assert (repository / ".venv" / "bin" / "python").exists()
    (repository / "requirements.txt").write_text("torch\nscipy\n")
    assert run().returncode == 0
    assert len(pip_calls(tmp_path)) == 2, "a changed file is installed again"


@pytest.mark.parametrize("version", ["3.9.18", "3.14.0"])
def test_setup_refuses_a_python_too_old_or_too_new_in_one_line(scripts, version):
    ended = scripts[1](version=version, refused=1)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"is Python {version}, but Python 3.10 to 3.13 is needed" in line


@pytest.mark.parametrize("broken", ["link to nowhere", "no pip"])
def test_setup_makes_a_broken_environment_again(scripts, tmp_path, broken):
    repository, run = scripts
    python = repository / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    if broken == "no pip":
        python.write_text("#!/bin/sh\nexit 1\n")
        python.chmod(0o755)
    else:
        python.symlink_to(tmp_path / "gone")
        python.unlink()  # `venv --clear` removes it too
    assert run().returncode == 0
    assert "--clear" not in pip_calls(tmp_path)
    assert len(pip_calls(tmp_path)) == 1


def test_setup_tries_a_failed_installation_again_at_the_next_start(scripts, tmp_path):
    ended = scripts[1](pip_code=1)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("error: installing requirements.txt failed")
    shutil.rmtree(scripts[0] / ".venv")
    assert scripts[1]().returncode == 0
    assert len(pip_calls(tmp_path)) == 2


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 13), (3, 14)])
def test_version_check_admits_3_10_to_3_13(version):
    text = (ROOT / "scripts" / "setup.sh").read_text()
    (check,) = [line for line in text.splitlines() if "sys.version_info" in line]
    code = (
        check.split("'")[1]
        .replace("import sys; sys.exit(not ", "bad = not (")
        .replace("sys.version_info[:2]", "version")
    )
    scope = {"version": version}
    exec(code, scope)
    assert scope["bad"] == (version not in [(3, 10), (3, 11), (3, 12), (3, 13)])


@pytest.mark.slow
def test_quickstart_ends_with_a_table_a_picture_and_paths_and_skips_at_the_second_start(tmp_path):
    outputs = tmp_path / "out put"
    arguments = ["bash", str(ROOT / "scripts" / "quickstart.sh"), f"outputs={outputs}", "epochs=1"]
    first = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    for text in ("SGD", "SAM rho=0.2", "Test error (%)", "Train error, noisy / clean labels (%)"):
        assert text in first.stdout
    assert (outputs / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    assert str(outputs / "comparison.md") in first.stdout
    again = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0
    assert "2 of 2 runs ended before, skipped" in again.stdout
