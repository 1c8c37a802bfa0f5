"""The steps at which the fault harness kills processes exist, so that a renamed function is noticed at once."""

import pytest

from benchmarks.faults.harness.steps import STEPS, name_of

EVERY_STEP = sorted({(name_of(*step), *step) for steps in STEPS.values() for step in steps}, key=lambda one: one[0])


@pytest.mark.parametrize(("owner", "name"), [one[1:] for one in EVERY_STEP], ids=[one[0] for one in EVERY_STEP])
def test_a_step_is_a_function_of_its_owner(owner: object, name: str) -> None:
    assert callable(getattr(owner, name, None))
