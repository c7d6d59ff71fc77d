"""What a sweep changes in submitit, which its launcher on Slurm uses: all of it stands here.

Tried with submitit 1.5.4 and hydra-submitit-launcher 1.2.0. tests/run/test_launcher_adapters.py says so
when a new version changes any of it.
"""

from contextlib import AbstractContextManager

from sam.run.returned_errors import errors_returned


def with_errors_returned() -> AbstractContextManager[None]:
    """Have Hydra's launcher return the error of a job that died.

    It ends with `[job.results()[0] for job in jobs]`, so the first error would leave the other jobs alone.
    """
    from submitit import Job

    return errors_returned(Job, "results", lambda error: [error])
