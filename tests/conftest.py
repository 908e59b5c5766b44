"""Sets up hypothesis and logging for all tests."""

from collections.abc import Iterator

import hypothesis
import pytest
import structlog

# Machines here are shared, so the time of an example says nothing about the code.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Reset logging after each test, because a command line that ran in the test has set it up."""
    yield
    structlog.reset_defaults()
