"""Every command and all code that a page shows runs; links and paths lead to files; the site builds."""

import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import timm
import torch
from hydra import compose, initialize_config_dir

import sam
from sam.config.compose import checked
from sam.config.schema import EvaluateConfig, TrainConfig, config_items
from tests import quick_process
from tests.run.test_inspection import QUICK
from tests.tiny import TINY

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULTS = sorted((ROOT / "results").glob("*/*.md"))
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in (*PAGES, *RESULTS)}
PROGRAMS = ("python", "bash", "pip", "make", "mkdocs", "torchrun", "srun")
# Commands that no page test runs, by their beginning, and the file that does run them.
ELSEWHERE = {
    "bash scripts/quickstart.sh": "tests/scripts/test_setup.py",
    "bash scripts/setup.sh": "tests/scripts/test_setup.py",
    "bash scripts/gpu_check.sh": "tests/scripts/test_gpu_check.py",
    "bash scripts/test.sh": ".ci/run",
    "make": "Makefile",  # each is one line there
    "mkdocs build --strict": "tests/test_docs.py",
    "pip install .": "tests/test_wheel.py",
    'pip install "hydra-': "requirements-dev.txt",
    "pip install --no-deps hessian-eigenthings": "tests/scripts/benchmarks/test_benchmark.py",
    "torchrun": "tests/clusters/test_two_hosts.py",
    "srun": "tests/clusters/test_slurm.py",
    "python -m tests.report.many_runs": "tests/report/test_many_runs.py",
    "python tests/faults/campaign.py": "tests/faults/test_faults.py",
    "python tests/faults/long_run.py": "tests/faults/test_long_run.py",
    "python scripts/compare.py outputs --diff": "tests/scripts/test_compare.py",
    "python scripts/figure.py NAME": "tests/scripts/test_figure.py",
    "python scripts/benchmarks/precision.py RUN": "tests/scripts/benchmarks/test_precision.py",
    "python scripts/reproduce.py": "tests/scripts/test_reproduce.py",
    "python scripts/benchmarks/benchmark.py optimizer": "tests/scripts/benchmarks/test_benchmark.py",
    "python scripts/benchmarks/text_experiment.py": "tests/scripts/benchmarks/test_text_experiment.py",
    "python scripts/benchmarks/fsdp_objects.py": "tests/scripts/benchmarks/test_fsdp_objects.py",
}
READ_RUNS = ("evaluate.py", "scripts/compare.py", "scripts/report.py", "scripts/figure.py")


def blocks(text: str, language: str) -> list[str]:
    """Return the code of a language; lines that end with a backslash are joined with the next one."""
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r"\\\n *", "", block) for block in found]


def bash_lines(text: str) -> list[str]:
    lines = "\n".join(blocks(text, "bash")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def shown_commands(text: str) -> Iterator[str]:
    """Yield every command: a line of a block, or code in a sentence."""
    for block in blocks(text, r"\w*"):
        yield from (line for line in block.splitlines() if line.startswith(tuple(f"{p} " for p in PROGRAMS)))
    sentences = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", sentences):
        words = " ".join(code.split())
        if words.startswith(tuple(f"{p} " for p in PROGRAMS)):
            yield words


COMMANDS = [
    (page, command) for page, text in TEXTS.items() for command in dict.fromkeys(shown_commands(text))
]
WITH_KEYS = [
    command
    for _, command in COMMANDS
    if re.match(r"python (train|evaluate|scripts/figure|scripts/benchmarks/benchmark)\.py .*=", command)
]


def is_elsewhere(command: str) -> bool:
    return any(command.startswith(beginning) for beginning in ELSEWHERE)


def test_every_command_is_run_here_or_has_a_test_elsewhere():
    for page, command in COMMANDS:
        is_tested = command in WITH_KEYS or is_elsewhere(command) or is_beginning_of_a_run_command(command)
        assert is_tested, f"{page}: {command}"
    for file in ELSEWHERE.values():
        assert (ROOT / file).exists(), file


def is_beginning_of_a_run_command(command: str) -> bool:
    return any(line.startswith(command) for text in TEXTS.values() for line in bash_lines(text))


@pytest.mark.parametrize("line", dict.fromkeys(WITH_KEYS))
def test_keys_of_a_shown_command_go_together(line):
    # Word for word; the stand-ins below leave out some keys and change others.
    pairs = [word.split("=", 1) for word in shlex.split(line) if "=" in word and not word.startswith("--")]
    of_first_job = [f"{key}={value.split(',')[0]}" for key, value in pairs if not key.startswith("hydra")]
    name, schema = ("evaluate", EvaluateConfig) if "evaluate.py" in line else ("train", TrainConfig)
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        checked(compose(name, of_first_job), schema)


def stand_in(arguments):
    """The same command on four classes of noise, with a network and a schedule of nothing."""
    files = ("dataset=", "dataset.name=", "dataset.root=", "dataset.image_size=", "dataset.resize_size=")
    others = ("experiment=quickstart", "epochs=")
    kept = [item for item in arguments if not item.startswith((*files, *others))]
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


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in TEXTS if bash_lines(TEXTS[page])])
def test_commands_of_a_page_run_in_the_order_they_are_shown(page, command, tmp_path):
    lines = [line for line in bash_lines(TEXTS[page]) if not is_elsewhere(line) or "reproduce.py" in line]
    if any(script in line for line in lines for script in READ_RUNS):
        (of_wrn, *_) = [line for line in bash_lines(TEXTS["docs/train.md"]) if "wrn_28_10" in line]
        for optimizer in ("sgd", "sam optimizer.rho=0.05", "sam optimizer.rho=0.1"):
            of_kind = of_wrn.replace("optimizer=sam optimizer.rho=0.05", f"optimizer={optimizer}")
            code, _, err = command("train.py", *stand_in(shlex.split(of_kind)[2:]))
            assert code == 0, err
    for line in lines:
        program, script, *arguments = shlex.split(line)
        assert program == "python", line
        code, err = run(command, tmp_path, script, arguments)
        assert code == 0, f"{line}: {err}"


def run(command, folder, script, arguments):
    """Run a stand-in of one command, in this process where that is possible; return exit code and stderr."""
    if script == "train.py" and not {"runtime=ddp", "--help"} & set(arguments):
        code, _, err = command(script, *stand_in(arguments))
        return code, err
    if script == "evaluate.py":
        (of_wrn,) = folder.glob("outputs/*/wrn_28_10/cutout/sam-rho0.05/seed1-*")
        shown = pathlib.Path(arguments[0].removeprefix("run=")).parts
        assert (shown[0], *shown[2:5]) == ("outputs", *of_wrn.relative_to(folder).parts[2:5])
        code, _, err = command(script, f"run={of_wrn}", *arguments[1:], *QUICK)
        return code, err
    if script.endswith("benchmark.py"):
        at = arguments.index("--plain") if "--plain" in arguments else len(arguments)
        arguments = [*stand_in(arguments[:at]), "--blocks", "1", *arguments[at:]]
    elif "runtime=ddp" in arguments or arguments[:1] == ["batch"]:
        arguments = stand_in(arguments)
    elif script == "scripts/reproduce.py":  # tests/scripts/test_reproduce.py does the rest of it
        shown = [item for item in arguments if item not in ("--dry-run", "--smoke", "--list")]
        arguments = [*shown, "--list"]
    ended = quick_process.run([ROOT / script, *arguments], folder)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("page", "code"), [(page, code) for page, text in TEXTS.items() for code in blocks(text, "python")]
)
def test_shown_code_runs(page, code):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    before = model.weight.clone()
    names = {
        "model": model,
        "loss": torch.nn.functional.cross_entropy,
        "loader": [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)],
    }
    exec(code, names)
    assert not torch.equal(model.weight, before), page


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", TEXTS[page]):
        name, _, heading = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page}: {target}"
        assert not page.startswith("docs") or file.resolve().is_relative_to(ROOT / "docs"), target
        lines = re.findall(r"^#+ (.*)$", file.read_text() if heading else "", re.MULTILINE)
        anchors = [re.sub(r"[^a-z0-9 _-]", "", line.lower()).replace(" ", "-") for line in lines]
        assert not heading or heading in anchors, f"{page}: {target}"


def test_pictures_of_the_evidence_are_those_of_the_results():
    results = ROOT / "results" / "measured"
    places = {
        "fig1": "figures",
        "error-epochs": "figures",
        "fig3-spectrum": "figures",
        "sharpness": "figures",
    }
    originals = {name: results / folder / f"{name}.png" for name, folder in places.items()}
    originals["quickstart"] = results / "quickstart" / "comparison.png"
    assert set(re.findall(r"images/([\w-]+)\.png", TEXTS["docs/evidence.md"])) == set(originals)
    for name, original in originals.items():
        assert (ROOT / "docs" / "images" / f"{name}.png").read_bytes() == original.read_bytes(), name


@pytest.mark.parametrize("page", TEXTS)
def test_paths_in_code_format_exist(page):
    folders = r"(?:sam|scripts|configs|tests|results|docs)/[\w./-]+|\.ci/run|[A-Z]+\.(?:md|cff)|[\w-]+\.txt"
    for path in re.findall(rf"`({folders})`", TEXTS[page]):
        if "NAME" not in path and "GROUP" not in path:
            assert (ROOT / path).exists() or ((ROOT / page).parent / path).exists(), f"{page}: {path}"


def test_train_page_names_every_choice_of_every_group():
    for group in (ROOT / "configs").iterdir():
        if group.is_dir() and group.name != "hydra":
            (row,) = re.findall(rf"^\| `{group.name}` \|.*$", TEXTS["docs/train.md"], re.MULTILINE)
            for path in group.rglob("*.yaml"):
                choice = path.relative_to(group).with_suffix("").as_posix()  # table1/wrn_28_10_200
                assert f"`{choice}`" in row, f"{group.name}={choice} is missing"


def test_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 150


def test_citation_has_the_version_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [sam.__version__]


@pytest.mark.slow
def test_site_builds_strictly_with_every_key_and_loads_nothing_from_another_host(tmp_path):
    pytest.importorskip("material")
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    keys = (tmp_path / "keys.html").read_text(encoding="utf-8")
    for key, _, _ in config_items(TrainConfig()):
        assert f"<code>{key}</code>" in keys
    assert "<td></td>" not in keys, "a key without a meaning"
    from_elsewhere = r"<(?:script|img|iframe)[^>]* src=\"?http|<link[^>]* href=\"?http"
    for page in tmp_path.rglob("*.html"):
        assert not re.search(from_elsewhere, page.read_text(encoding="utf-8")), page
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()[^;)]*http", style.read_text(encoding="utf-8")), style
