"""Every command and every piece of code in README.md runs; data and epochs are tiny stand-ins."""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import timm
import torch
from hydra import compose, initialize_config_dir

from sam.config.compose import checked
from sam.config.schema import TrainConfig
from tests.run.test_inspection import QUICK
from tests.tiny import TINY

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line and not line.startswith("#")
]
# These set up .venv; .ci/run and tests/scripts/test_setup.py run them.
ELSEWHERE = {"bash scripts/quickstart.sh", "bash scripts/test.sh"}
# Those that take the keys of a run, in any block or sentence.
WITH_KEYS = re.findall(
    r"(?m)(?:^|`)(python (?:train|scripts/figure|scripts/benchmarks/benchmark)\.py [^`\n]*=[^`\n]*)", README
)


def stand_in(arguments):
    """The same command on four classes of noise, with a network and a schedule of nothing."""
    files = ("dataset=", "dataset.name=", "dataset.root=", "dataset.image_size=", "dataset.resize_size=")
    others = ("experiment=quickstart", "epochs=")
    kept = [item for item in arguments if not item.startswith((*files, *others))]
    kept = ["seed=0,1" if item == "seed=0,1,2,3,4" else item for item in kept]
    small = [item for item in TINY if not item.startswith("model.")]
    if any(item.startswith("analysis") for item in arguments):
        small += QUICK
    if "experiment=finetune" in arguments:
        torch.save(timm.create_model("test_efficientnet").state_dict(), "lite0.pth")
        for item in ("dataset.in_memory=false", "dataset.interpolation=bicubic"):
            kept.remove(item)
        small += ["model.timm_name=test_efficientnet", "dataset.image_size=32", "augmentation=none"]
        return [*kept, *small, "m=8"]
    if any("wrn" in item for item in arguments):
        return [*kept, *small, "model.depth=10", "model.width=1", "m=8"]
    return [*kept, *small, "model.width=4", "m=8" if "runtime=ddp" in arguments else "m=null"]


@pytest.mark.parametrize("line", WITH_KEYS)
def test_readme_commands_ask_for_keys_that_go_together(line):
    # Word for word; the stand-ins below leave out some keys and change others.
    pairs = [word.split("=", 1) for word in shlex.split(line) if "=" in word]
    of_first_job = [f"{key}={value.split(',')[0]}" for key, value in pairs]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        checked(compose("train", of_first_job), TrainConfig)


@pytest.mark.slow
def test_readme_commands_run_in_the_order_they_are_shown(command, tmp_path):
    assert ELSEWHERE <= set(COMMANDS)
    rest = [line for line in COMMANDS if line not in ELSEWHERE]
    assert len(rest) >= 6
    for line in rest:
        program, script, *arguments = shlex.split(line)
        assert program == "python", line
        options = arguments[arguments.index("--plain") :] if "--plain" in arguments else []
        arguments = arguments[: len(arguments) - len(options)]
        if script == "train.py" and "runtime=ddp" not in arguments:
            code, _, err = command(script, *stand_in(arguments))
        elif script == "evaluate.py":
            (run,) = tmp_path.glob("outputs/*/wrn_28_10/cutout/sam-rho0.05/seed1-*")
            shown = pathlib.Path(arguments[0].removeprefix("run=")).parts
            assert (shown[0], *shown[2:5]) == (
                "outputs",
                *run.relative_to(tmp_path).parts[2:5],
            )
            code, _, err = command(script, f"run={run}", *arguments[1:], *QUICK)
        else:
            if script == "scripts/benchmarks/benchmark.py":
                arguments = [*stand_in(arguments), "--blocks", "1", *options]
            elif script == "train.py" or arguments[0] == "batch":
                arguments = stand_in(arguments)
            elif script == "scripts/reproduce.py":  # tests/scripts/test_reproduce.py does the rest of it
                arguments = [item for item in arguments if item not in ("--dry-run", "--smoke", "--list")]
                arguments.append("--list")
            ended = subprocess.run(
                [sys.executable, str(ROOT / script), *arguments], cwd=tmp_path, capture_output=True, text=True
            )
            code, err = ended.returncode, ended.stderr
        assert code == 0, f"{line}: {err}"
    assert (tmp_path / "outputs" / "comparison.png").exists()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_readme_code_runs(code):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    before = model.weight.clone()
    names = {
        "model": model,
        "loss": torch.nn.functional.cross_entropy,
        "loader": [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)],
    }
    exec(code, names)
    assert not torch.equal(model.weight, before)


def test_readme_links_lead_to_files():
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        file, _, heading = target.partition("#")
        text = (ROOT / (file or "README.md")).read_text() if heading else ""
        assert (ROOT / file).exists(), target
        headings = [
            re.sub(r"[^a-z0-9 -]", "", line.lower()) for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        ]
        assert not heading or heading in [line.replace(" ", "-") for line in headings], target


def test_readme_names_every_choice_of_every_group():
    for group in (ROOT / "configs").iterdir():
        if group.is_dir() and group.name != "hydra":
            (row,) = re.findall(rf"^\| `{group.name}` \|.*$", README, re.MULTILINE)
            for path in group.rglob("*.yaml"):
                choice = path.relative_to(group).with_suffix("").as_posix()  # table1/wrn_28_10_200
                assert f"`{choice}`" in row, f"{group.name}={choice} is missing"
