"""For all tests."""

from collections.abc import Iterator

import hypothesis
import pytest
import structlog

# Machines here are shared: how long an example takes says nothing of the code.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command line that ran inside a test has set up logging for that test alone."""
    yield
    structlog.reset_defaults()
