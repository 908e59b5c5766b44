"""Cases of the suite's test_expiration.py: metadata that has expired, as it is served or as the client keeps it."""

from collections.abc import Iterator
from datetime import timedelta

from tests.agent.pushes.world import NOW
from tests.conformance.case import Case, Intent, World
from tests.conformance.repository import ONLINE, ROOT, SNAPSHOT, TIME

PAST = NOW - timedelta(days=5)


def root_has_expired(world: World) -> None:
    world.init()
    world.expect_accepted()
    world.repository.publish(ROOT)
    world.expect_accepted()
    world.repository.root.expires = PAST
    world.repository.publish(ROOT)
    world.expect_refused()
    world.expect_trusted(root=3, timestamp=1, snapshot=1, targets=1)


def timestamp_has_expired(world: World) -> None:
    world.init()
    world.expect_accepted()
    world.repository.timestamp.expires = PAST
    world.repository.publish(TIME)
    world.expect_refused()
    world.expect_trusted(root=1, timestamp=1, snapshot=1, targets=1)


def snapshot_has_expired(world: World) -> None:
    world.init()
    world.expect_accepted()
    world.repository.snapshot.expires = PAST
    world.repository.publish(SNAPSHOT, TIME)
    world.expect_refused()
    world.expect_trusted(root=1, timestamp=2, snapshot=1, targets=1)


def expired_targets_are_not_listed(world: World) -> None:
    world.init()
    world.expect_accepted()
    world.repository.targets.expires = PAST
    world.repository.publish(SNAPSHOT, TIME)
    world.expect_accepted()
    world.expect_trusted(root=1, timestamp=2, snapshot=2, targets=1)


def the_kept_root_has_expired(world: World) -> None:
    world.init()
    world.repository.root.expires = NOW + timedelta(days=7)
    world.repository.publish(ROOT)
    world.expect_accepted()
    world.repository.root.expires = NOW + timedelta(days=21)
    world.repository.publish(ROOT)
    world.expect_accepted(day=18)
    world.expect_trusted(root=3, timestamp=1, snapshot=1, targets=1)


def the_kept_timestamp_has_expired(world: World) -> None:
    world.init()
    world.repository.timestamp.expires = NOW + timedelta(days=7)
    world.repository.publish(TIME)
    world.expect_accepted()
    world.repository.timestamp.expires = NOW + timedelta(days=21)
    world.repository.publish(*ONLINE)
    world.expect_accepted(day=18)
    world.expect_trusted(root=1, timestamp=3, snapshot=2, targets=2)


def cases() -> Iterator[Case]:
    yield Case("test_expiration.py::test_root_expired", root_has_expired, Intent.ALL_OR_NOTHING)
    yield Case("test_expiration.py::test_timestamp_expired", timestamp_has_expired)
    yield Case("test_expiration.py::test_snapshot_expired", snapshot_has_expired, Intent.ALL_OR_NOTHING)
    yield Case("test_expiration.py::test_targets_expired", expired_targets_are_not_listed)
    yield Case("test_expiration.py::test_expired_local_root", the_kept_root_has_expired)
    yield Case("test_expiration.py::test_expired_local_timestamp", the_kept_timestamp_has_expired)
