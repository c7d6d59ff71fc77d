"""What `pip install .` installs: the optimizer, which needs torch alone."""

import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement

import sam
import sam.optim

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = {
    "sam/__init__.py",
    "sam/py.typed",
    "sam/optim/__init__.py",
    "sam/optim/averaged.py",
    "sam/optim/closure.py",
    "sam/optim/f_sam.py",
    "sam/optim/groups.py",
    "sam/optim/le_sam.py",
    "sam/optim/memory.py",
    "sam/optim/msam.py",
    "sam/optim/one_pass.py",
    "sam/optim/perturbation.py",
    "sam/optim/protocol.py",
    "sam/optim/running_statistics.py",
    "sam/optim/s2_sam.py",
    "sam/optim/sam.py",
    "sam/optim/schedule.py",
    "sam/optim/stable_sam.py",
    "sam/optim/vasso.py",
}
ABOUT = {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE", "top_level.txt"}
# Runs before and after the lines of README.md. torch loads much itself, so its modules are counted first.
BEFORE = """
import sys, sam
assert "torch" not in sys.modules, "import sam loads torch"
import torch, torch._dynamo

loaded = set(sys.modules)
torch.manual_seed(0)
model = torch.nn.Linear(4, 3)
before = model.weight.clone()
loss = torch.nn.functional.cross_entropy
loader = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)]
"""
AFTER = """
assert not torch.equal(model.weight, before)
packages = {name.partition(".")[0] for name in set(sys.modules) - loaded}
print(sam.__file__, *sorted(packages - set(sys.stdlib_module_names) - {"torch"}))
"""


def run(command, folder, path=""):
    """Run a command that may take nothing from this checkout; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built without a network from a copy, since setuptools leaves its traces in the source."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "sam", source / "sam", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--wheel-dir", "wheels"]
    run([sys.executable, "-m", "pip", "wheel", *options, "."], source)
    (path,) = (source / "wheels").iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel's files, as pip lays them out."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--quiet", "--target", str(folder)]
    run([sys.executable, "-m", "pip", "install", *options, str(wheel)], folder)
    return folder


def test_wheel_holds_the_optimizer_and_nothing_else(wheel):
    about = f"sharpness_aware_minimization-{sam.__version__}.dist-info"
    assert set(zipfile.ZipFile(wheel).namelist()) == FILES | {f"{about}/{name}" for name in ABOUT}


@pytest.mark.slow
def test_wheel_asks_for_the_torch_of_requirements_txt_alone(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
    about = email.message_from_bytes(archive.read(name))
    (torch,) = re.findall(r"(?m)^torch>.*$", (ROOT / "requirements.txt").read_text())
    assert [Requirement(asked) for asked in about.get_all("Requires-Dist")] == [Requirement(torch)]
    assert about["Version"] == sam.__version__


@pytest.mark.slow
def test_lines_of_the_readme_run_with_the_wheel_and_torch_alone(installed, tmp_path):
    lines = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert any("SAM(" in code for code in lines)
    printed = run([sys.executable, "-c", BEFORE + "\n".join(lines) + AFTER], tmp_path, installed)
    assert printed.split() == [str(installed / "sam" / "__init__.py"), "sam"]


@pytest.mark.slow
def test_example_runs_with_the_wheel_alone_and_warns_of_nothing(installed, tmp_path):
    example = ROOT / "scripts" / "examples" / "plain_loop.py"
    printed = run([sys.executable, "-W", "error", str(example)], tmp_path, installed)
    assert re.fullmatch(r"loss [\d.]+ -> [\d.]+\n", printed)


def test_package_offers_the_optimizer_by_its_short_name():
    from sam import SAM

    assert SAM is sam.optim.SAM
    with pytest.raises(AttributeError, match="'sam' has no attribute 'ASAM'"):
        sam.ASAM  # noqa: B018 - the access is the test
