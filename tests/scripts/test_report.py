"""Tests of scripts/report.py as a command, and of its page in a browser."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sam.report.html.tables import MANY
from tests.record.analysis_files import write_hessian, write_sharpness
from tests.record.run_directories import falling_errors, write_run

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "report.py"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed")


def _report(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script in a folder and return the finished process."""
    command = [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")


def _assert_fails(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def _write_runs(root: Path) -> None:
    """Write two seeds of SGD and of SAM with analyses, and one interrupted run."""
    for seed in (0, 1):
        for method, error in (("sgd", 3.5 + 0.1 * seed), ("sam", 2.7 + 0.1 * seed)):
            result = {"test_error_pct": error}
            run = write_run(root, result, falling_errors(5, error), seed=seed, optimizer__name=method)
            write_hessian(run, [20.0 * error] * 5)
            write_sharpness(run, {1: 0.1 * error, 16: 0.05 * error})
    write_run(root, {"status": "interrupted"}, falling_errors(3, 9.0), seed=2)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of these runs, written once for all tests in the browser."""
    root = tmp_path_factory.mktemp("runs")
    _write_runs(root)
    assert _report(root, root).returncode == 0
    return (root / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def page(text: str, tmp_path: Path) -> Path:
    """A new copy for each test."""
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.slow
def test_report_writes_one_file_into_the_default_folder(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    _write_runs(outputs)
    before = set(outputs.rglob("*"))
    done = _report(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"wrote {Path('outputs', 'report.html')}\n"
    assert set(outputs.rglob("*")) - before == {outputs / "report.html"}
    text = (outputs / "report.html").read_text(encoding="utf-8")
    assert text.count('<svg viewBox="') == 6  # curves, sharpness, and two analyses of two conditions
    assert "note 1 (departures)" in text


@pytest.mark.slow
def test_report_with_out_writes_there_only_and_repeats_itself(tmp_path: Path) -> None:
    for method in ("sgd", "sam"):
        write_run(tmp_path / "runs", metrics=falling_errors(5, 3.0), optimizer__name=method)
    before = sorted((tmp_path / "runs").rglob("*"))
    paths = [tmp_path / "new" / name for name in ("a.html", "b.html")]
    for path in paths:
        assert _report(tmp_path, "runs", "--out", path).returncode == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted((tmp_path / "runs").rglob("*")) == before


@pytest.mark.slow
def test_report_warns_of_broken_runs_and_goes_on(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    (write_run(tmp_path, seed=1) / "result.json").write_text("{")
    done = _report(tmp_path, tmp_path)
    assert done.returncode == 0
    assert done.stderr.startswith(f"warning: {tmp_path}")


@pytest.mark.slow
def test_report_of_texts_that_utf_8_lacks_is_written(tmp_path: Path) -> None:
    write_run(tmp_path, {"message": "\ud800"})
    assert _report(tmp_path, tmp_path).returncode == 0


@pytest.mark.slow
def test_report_without_runs_says_what_to_do(tmp_path: Path) -> None:
    _assert_fails(
        _report(tmp_path), f"no folder {tmp_path / 'outputs'}; name the folder that holds your runs"
    )
    _assert_fails(_report(tmp_path, tmp_path), "train one first: python train.py")


@pytest.mark.slow
def test_report_with_a_folder_in_the_place_of_out_says_what_to_do(tmp_path: Path) -> None:
    write_run(tmp_path, {"status": "interrupted"})
    done = _report(tmp_path, tmp_path, "--out", tmp_path)
    _assert_fails(done, f"cannot write to {tmp_path} (Is a directory); name another file with --out")


def test_report_needs_no_torch() -> None:
    program = f"import runpy, sys; runpy.run_path({str(SCRIPT)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def _browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page without a window; errors of its scripts and of its policy go to stderr."""
    assert BROWSER is not None
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    return subprocess.run(
        [*command, profile, *options, page.as_uri()], capture_output=True, text=True, timeout=120
    )


def _add_script(page: Path, script: str) -> None:
    """Add a script at the end of a page, and remove the policy that would block it."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")


@pytest.mark.slow
@needs_browser
def test_page_has_no_error_and_its_tables_can_be_sorted(page: Path) -> None:
    done = _browse(page, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert '<button type="button">Method</button>' in done.stdout


@pytest.mark.slow
@needs_browser
def test_page_sorts_by_numbers(page: Path) -> None:
    click = """
      const table = document.querySelector("#settings table");
      const button = table.tHead.rows[0].cells[1].querySelector("button");
      const order = () => Array.from(table.tBodies[0].rows, (row) => row.cells[0].textContent).join();
      button.click(); document.title = order(); button.click(); document.title += " " + order();
      document.title += " " + table.querySelector("[aria-sort]").getAttribute("aria-sort");
    """
    _add_script(page, click)
    done = _browse(page, "--dump-dom")
    assert "<title>SAM rho=0.05,SGD SGD,SAM rho=0.05 descending</title>" in done.stdout


@pytest.mark.slow
@needs_browser
def test_page_sorts_texts_by_the_decimal_numbers_in_them(page: Path) -> None:
    click = """
      const table = document.querySelector("#settings table");
      const body = table.tBodies[0];
      const names = ["SAM rho=0.1", "SAM rho=0.01", "SGD", "SAM rho=1e-05", "SAM rho=0.4", "SAM rho=0.05"];
      const rows = names.map((name) => {
        const row = body.rows[0].cloneNode(true);
        row.cells[0].textContent = name;
        return row;
      });
      body.replaceChildren(...rows);
      table.tHead.rows[0].cells[0].querySelector("button").click();
      const sorted = Array.from(body.rows, (row) => row.cells[0].textContent.replace("SAM rho=", ""));
      document.title = sorted.join();
    """
    _add_script(page, click)
    assert "<title>1e-05,0.01,0.05,0.1,0.4,SGD</title>" in _browse(page, "--dump-dom").stdout


@pytest.mark.slow
@needs_browser
def test_page_of_many_settings_can_be_searched(tmp_path: Path) -> None:
    for place in range(MANY + 1):
        model = "resnet8" if place == 3 else "wrn_28_10"
        write_run(tmp_path, epochs=place + 1, model__name=model)
    assert _report(tmp_path, tmp_path).returncode == 0
    page = tmp_path / "report.html"
    assert "CONSOLE" not in _browse(page, "--dump-dom").stderr
    search = """
      const input = document.querySelector("input[type=search]");
      const told = [];
      for (const words of ["RESNET8 sgd", "no such run", ""]) {
        input.value = words;
        input.dispatchEvent(new Event("input"));
        const open = document.querySelectorAll("#runs .shelf[open]").length;
        const sections = document.querySelectorAll("main > section:not([hidden])").length;
        const blocks = document.querySelectorAll("#settings .block:not([hidden]) h3");
        told.push(`${open} ${sections > 0} ${blocks.length} ${input.nextSibling.textContent}`);
      }
      document.title = told.join("; ");
    """
    _add_script(page, search)
    found = _browse(page, "--dump-dom").stdout
    assert f"<title>1 true 1 2 tables; 0 false 0 0 tables; 0 true {MANY + 1} </title>" in found


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_no_wider_than_the_window(page: Path, width: int) -> None:
    _add_script(
        page,
        """
      document.querySelectorAll("details").forEach((part) => { part.open = true; });
      document.title = `${document.documentElement.scrollWidth - innerWidth}`;
    """,
    )
    # A window has a minimum width; a frame can be as narrow as a phone.
    frame = page.with_name("frame.html")
    shown = "document.querySelector('iframe').contentDocument.title"
    frame.write_text(
        f'<iframe src="{page.name}" width="{width}" height="800" onload="document.title = {shown}"></iframe>'
    )
    done = _browse(frame, "--dump-dom", "--allow-file-access-from-files")
    (excess,) = re.findall(r"<title>(-?\d+)</title>", done.stdout)
    assert int(excess) <= 0


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("scheme", "is_light"), [(0, False), (1, True)])
def test_page_follows_the_scheme_of_the_system(page: Path, scheme: int, is_light: bool) -> None:
    shot = page.with_suffix(".png")
    _browse(
        page,
        f"--screenshot={shot}",
        "--window-size=800,800",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    corner = Image.open(shot).convert("L").getpixel((2, 2))
    assert isinstance(corner, int)
    assert (corner > 128) is is_light


@needs_browser
def test_page_can_be_printed(page: Path) -> None:
    path = page.with_suffix(".pdf")
    _browse(page, f"--print-to-pdf={path}")
    assert path.read_bytes().startswith(b"%PDF")
