"""Cases of the suite's test_rollback.py: older versions, and the way back after versions were fast-forwarded."""

from collections.abc import Iterator
from functools import partial

from tuf.api.metadata import MetaFile

from tests.conformance.case import Case, Intent, Play, World
from tests.conformance.repository import ALL, ONLINE, ROOT, SNAPSHOT, TARGETS, TIME, file_name

FAR = 99_999
"""A version that no honest repository reaches."""


def snapshot_goes_back_under_its_name(world: World) -> None:
    """The file of version 2 has version 1 inside; the client has version 2 already and does not look."""
    world.init()
    world.repository.publish(SNAPSHOT, TIME)
    world.expect_accepted()
    world.repository.files[file_name(SNAPSHOT, 2)] = world.repository.altered(SNAPSHOT, version=1)
    world.expect_accepted()
    world.expect_trusted(root=1, timestamp=2, snapshot=2, targets=1)


def timestamp_goes_back(world: World) -> None:
    world.init()
    world.repository.publish(TIME)
    world.expect_accepted()
    world.repository.publish(TIME, version=1)
    world.expect_refused()
    world.expect_trusted(root=1, timestamp=2, snapshot=1, targets=1)


def snapshot_goes_back(hashes: bool, world: World) -> None:
    world.init()
    world.repository.hashes = hashes
    world.repository.publish(SNAPSHOT, TIME)
    world.expect_accepted()
    world.repository.publish(SNAPSHOT, version=1)
    world.repository.publish(TIME)
    world.expect_refused()
    world.expect_trusted(root=1, timestamp=2, snapshot=2, targets=1)


def targets_go_back(hashes: bool, world: World) -> None:
    world.init()
    world.repository.hashes = hashes
    for _ in range(2):
        world.repository.publish(*ONLINE)
    world.expect_accepted()
    world.repository.publish(TARGETS, version=2)
    world.repository.publish(SNAPSHOT, TIME)
    world.expect_refused()
    world.expect_trusted(root=1, timestamp=3, snapshot=3, targets=3)


def snapshot_and_timestamp_disagree(world: World) -> None:
    world.init()
    world.repository.files[file_name(SNAPSHOT, 1)] = world.repository.altered(SNAPSHOT, version=2)
    world.expect_refused()
    world.expect_trusted(root=1, timestamp=1)


def recovers(role: str, replaced: tuple[str, ...], world: World) -> None:
    """A thief of the keys has signed version FAR of `role`; with new keys for `replaced`, the fleet counts anew."""
    repository = world.repository
    world.init()
    repository.publish(role, version=FAR)
    repository.publish(*ONLINE[ONLINE.index(role) + 1 :])
    world.expect_accepted()
    assert world.client.trusted()[role] == FAR
    for each in replaced:
        repository.replace_keys(each)
    repository.publish(ROOT)
    repository.publish(role, version=1)
    if role == TIME:
        repository.timestamp.snapshot_meta = MetaFile(1)
    repository.publish(*ONLINE[ONLINE.index(role) + 1 :])
    world.expect_accepted()
    wanted = {each: repository.signed[each].version for each in ALL}
    world.expect_trusted(**wanted)


def cases() -> Iterator[Case]:
    def case(name: str, play: Play, intent: Intent | None = None) -> Case:
        return Case(f"test_rollback.py::{name}", play, intent)

    yield case("test_simple_snapshot_rollback", snapshot_goes_back_under_its_name)
    yield case("test_new_timestamp_version_rollback", timestamp_goes_back)
    for name, hashes in (("basic", False), ("with hashes", True)):
        yield case(f"test_snapshot_rollback[{name}]", partial(snapshot_goes_back, hashes))
    yield case("test_new_targets_fast_forward_recovery", partial(recovers, TARGETS, (SNAPSHOT,)))
    yield case("test_new_snapshot_fast_forward_recovery", partial(recovers, SNAPSHOT, (SNAPSHOT, TIME)))
    yield case("test_new_snapshot_version_mismatch", snapshot_and_timestamp_disagree, Intent.ALL_OR_NOTHING)
    yield case("test_new_timestamp_fast_forward_recovery", partial(recovers, TIME, (TIME,)))
    for name, hashes in (("basic", False), ("with hashes", True)):
        yield case(f"test_targets_rollback[{name}]", partial(targets_go_back, hashes))
