"""The method of submitit that a sweep replaces, since Hydra's Slurm launcher calls it.

Tested with submitit 1.5.4 and hydra-submitit-launcher 1.2.0. tests/run/test_launcher_adapters.py fails if a
new version changes what this file relies on.
"""

from contextlib import AbstractContextManager

from sam.run.returned_errors import errors_returned


def with_errors_returned() -> AbstractContextManager[None]:
    """Make Hydra's launcher return the error of a job that died.

    It ends with `[job.results()[0] for job in jobs]`, so it would stop waiting for the others after an error.
    """
    from submitit import Job

    return errors_returned(Job, "results", lambda error: [error])
