"""Hydra's launchers call the functions that our adapters replace. If a test fails, repair the adapter."""

import ast
import importlib.util
import pathlib
from importlib.metadata import version

import pytest

from sam.run import ray_adapter, submitit_adapter
from sam.run.returned_errors import errors_returned

# Module of a launcher, its package and the library's, the adapter, and the last line of the launcher.
LAUNCHERS = [
    (
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher",
        ("hydra-submitit-launcher", "submitit"),
        submitit_adapter,
        "[j.results()[0] for j in jobs]",
    ),
    (
        "hydra_plugins.hydra_ray_launcher._core",
        ("hydra-ray-launcher", "ray"),
        ray_adapter,
        "[ray.get(run) for run in runs]",
    ),
]


@pytest.mark.parametrize(("module", "packages", "adapter", "ending"), LAUNCHERS)
def test_launcher_waits_for_its_jobs_in_the_line_that_the_adapter_expects(module, packages, adapter, ending):
    if importlib.util.find_spec(module.rpartition(".")[0]) is None:
        pytest.skip(f"{packages[0]} is not installed")
    source = pathlib.Path(importlib.util.find_spec(module.rpartition(".")[0]).origin or "").parent
    tree = ast.parse((source / f"{module.rpartition('.')[2]}.py").read_text())
    endings = {
        ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.Return) and node.value
    }
    installed = " and ".join(f"{package} {version(package)}" for package in packages)
    assert ending in endings, f"{installed} wait for jobs in another way; repair {adapter.__name__}"


def test_submitit_returns_the_error_of_a_job():
    submitit = pytest.importorskip("submitit")
    with submitit_adapter.with_errors_returned():
        [error] = submitit.Job.results(None)
    assert isinstance(error, RuntimeError)
    with pytest.raises(AttributeError):
        submitit.Job.results(None)


def test_error_is_returned_in_one_line_and_the_function_is_restored():
    class Library:
        def get(self):
            raise ValueError("first\nsecond\nthird")

    with errors_returned(Library, "get", lambda error: [error]):
        [error] = Library().get()
    assert str(error) == "first second"
    with pytest.raises(ValueError, match="first\nsecond\nthird"):
        Library().get()
