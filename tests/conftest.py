"""For all tests."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command line that ran inside a test has set up logging for that test alone."""
    yield
    structlog.reset_defaults()
