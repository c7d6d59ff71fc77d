"""What the tests of scripts share."""

import sys

import pytest


@pytest.fixture
def accelerate_state():
    """accelerate keeps its settings in the process, and would use them again in the next test."""
    yield
    if "accelerate.state" in sys.modules:
        state = sys.modules["accelerate.state"]
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()
