"""Sets up hypothesis and logging for all tests, and the report of attacks."""

from collections.abc import Iterator

import hypothesis
import pytest
import structlog

from tests.attack_report import PROPERTY, AttackReport, RecordAttack, marked

# Machines here are shared, so the time of an example says nothing about the code.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Reset logging after each test, because a command line that ran in the test has set it up."""
    yield
    structlog.reset_defaults()


def pytest_configure(config: pytest.Config) -> None:
    """Let the process that hears of all tests write the report of attacks; a process of pytest-xdist does not."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(AttackReport(), "attack-report")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what an attack is beside its test, so that it is in each report of the test."""
    for item in items:
        if (row := marked(item)) is not None:
            item.user_properties.append((PROPERTY, row))


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> RecordAttack:
    """Return a function that adds to the row of this attack: `figure`, `receipt`, `state_changed` or `how`."""
    (row,) = [told for key, told in request.node.user_properties if key == PROPERTY]

    def record(*, figure: dict[str, object] | None = None, **fields: object) -> None:
        row.update(fields)
        row["figure"] = row["figure"] | (figure or {})

    return record
