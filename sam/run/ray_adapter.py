"""What a sweep changes in Ray, which its launcher on Ray uses: all of it stands here.

Tried with ray 2.60.0 and hydra-ray-launcher 1.2.2. tests/run/test_launcher_adapters.py says so when a
new version changes any of it.
"""

from contextlib import AbstractContextManager

from sam.run.returned_errors import errors_returned


def with_errors_returned() -> AbstractContextManager[None]:
    """Have Hydra's launcher return the error of a job that died.

    It ends with `[ray.get(run) for run in runs]`, so the first error would leave the other jobs alone.
    """
    import ray

    return errors_returned(ray, "get", lambda error: error)
