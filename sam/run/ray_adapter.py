"""The function of Ray that a sweep replaces, since Hydra's Ray launcher calls it.

Tested with ray 2.60.0 and hydra-ray-launcher 1.2.2. tests/run/test_launcher_adapters.py fails if a new
version changes what this file relies on.
"""

from contextlib import AbstractContextManager

from sam.run.returned_errors import errors_returned


def with_errors_returned() -> AbstractContextManager[None]:
    """Make Hydra's launcher return the error of a job that died.

    It ends with `[ray.get(run) for run in runs]`, so it would stop waiting for the other jobs after an error.
    """
    import ray

    return errors_returned(ray, "get", lambda error: error)
