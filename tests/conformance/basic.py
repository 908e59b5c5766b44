"""Cases of the suite's test_basic.py: the client workflow, and metadata that is damaged in one way each."""

import json
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

from tuf.api.metadata import MetaFile

from tests.agent.pushes.world import NOW
from tests.conformance.case import Case, Intent, Play, World
from tests.conformance.keys import with_field
from tests.conformance.repository import ALL, ONLINE, ROOT, SNAPSHOT, TARGETS, TIME, file_name


def refreshes(world: World) -> None:
    world.init()
    world.expect_accepted()
    world.expect_requests("2.root", "timestamp", "1.snapshot", "1.targets")


def trusts_what_is_served(world: World) -> None:
    world.init()
    world.expect_accepted()
    for role in ALL:
        world.expect_kept(role, world.repository.files[file_name(role, 1)])


def refreshes_before_it_downloads(world: World) -> None:
    world.init()
    world.expect_accepted()
    world.expect_documents({})
    world.expect_trusted(root=1, timestamp=1, snapshot=1, targets=1)


def first_root_without_a_version(world: World) -> None:
    root = json.loads(world.repository.first_root)
    del root["signed"]["version"]
    world.init(json.dumps(root).encode())
    world.expect_refused()


def first_root_with_another_signature(world: World) -> None:
    root = json.loads(world.repository.first_root)
    other = json.loads(world.repository.files[file_name(TARGETS, 1)])
    root["signatures"][0]["sig"] = other["signatures"][0]["sig"]
    world.init(json.dumps(root).encode())
    world.expect_refused()


def unsigned(role: str, trusted: dict[str, int], world: World) -> None:
    world.repository.signers[role].pop()
    world.repository.publish(*ALL)
    world.init()
    world.expect_refused()
    world.expect_trusted(**trusted)


def name_and_version_differ(role: str, trusted: dict[str, int], world: World) -> None:
    """The file has the name of version 2, and says that it is version 3."""
    world.init()
    world.repository.publish(*ALL)
    world.repository.files[file_name(role, 2)] = world.repository.altered(role, version=3)
    world.expect_refused()
    world.expect_trusted(**trusted)


def timestamp_changes_without_a_new_version(world: World) -> None:
    world.init()
    world.expect_accepted()
    before = world.client.metadata(TIME)
    world.repository.files[file_name(TIME, 1)] = world.repository.altered(TIME, snapshot_meta=MetaFile(100))
    world.expect_accepted()
    world.expect_kept(TIME, before)


def wrong_hash_in_the_snapshot(world: World) -> None:
    repository = world.repository
    repository.hashes = True
    repository.publish(*ONLINE)
    world.init()
    world.expect_accepted()
    repository.publish(TARGETS)
    hashes = repository.snapshot.meta["targets.json"].hashes
    assert hashes is not None
    hashes["sha256"] = "0" * 64
    repository.publish(SNAPSHOT, TIME)
    world.expect_refused()
    world.expect_trusted(root=1, timestamp=3, snapshot=3, targets=2)


def bytes_are_kept_as_they_are(world: World) -> None:
    world.init()
    odd = world.repository.files[file_name(TIME, 1)] + b" \n"
    world.repository.files[file_name(TIME, 1)] = odd
    world.expect_accepted()
    world.expect_kept(TIME, odd)


def unknown_fields(world: World) -> None:
    world.init()
    world.expect_accepted()
    root = world.repository.root
    root.unrecognized_fields["note"] = "value"
    root.roles[ROOT].unrecognized_fields["note"] = "value"
    world.repository.add_key(ROOT, with_field("note", {"a": 1, "b": 2}))
    world.repository.publish(ROOT)
    world.expect_accepted()
    world.expect_trusted(root=2, timestamp=1, snapshot=1, targets=1)


def odd_keyid_hash_algorithms(world: World) -> None:
    world.init()
    world.repository.replace_keys(SNAPSHOT, with_field("keyid_hash_algorithms", "md5"))
    world.repository.publish(ROOT, SNAPSHOT, TIME)
    world.expect_accepted()
    world.expect_trusted(root=2, timestamp=2, snapshot=2, targets=1)


def snapshot_is_missing(world: World) -> None:
    world.init()
    world.expect_accepted()
    world.repository.timestamp.snapshot_meta.version = 2
    world.repository.publish(TIME)
    world.expect_refused()
    world.expect_trusted(root=1, timestamp=2, snapshot=1, targets=1)


def targets_are_missing(world: World) -> None:
    world.init()
    world.expect_accepted()
    world.repository.snapshot.meta["targets.json"].version = 2
    world.repository.publish(SNAPSHOT, TIME)
    world.expect_refused()
    world.expect_trusted(root=1, timestamp=2, snapshot=2, targets=1)


def timestamp_is_missing(world: World) -> None:
    world.init()
    world.expect_accepted()
    del world.repository.files[file_name(TIME, 1)]
    world.expect_refused()
    world.expect_trusted(root=1, timestamp=1, snapshot=1, targets=1)


def snapshot_in_place_of_the_timestamp(world: World) -> None:
    """The file is a snapshot that has a timestamp's fields and its key's signature, so only its type is wrong."""
    world.init()
    repository = world.repository
    (signer,) = repository.signers[TIME]
    repository.add_key(SNAPSHOT, signer)
    repository.publish(ROOT)
    repository.files[file_name(TIME, 2)] = repository.altered(SNAPSHOT, version=2, meta={"snapshot.json": MetaFile(1)})
    world.expect_refused()
    world.expect_trusted(root=2)


def clock_can_be_moved(world: World) -> None:
    world.init()
    world.repository.root.expires = NOW + timedelta(days=7)
    world.repository.publish(ROOT)
    world.expect_accepted()
    world.expect_refused(day=8)


UNSIGNED: dict[str, dict[str, int]] = {
    ROOT: {"root": 1},
    TIME: {"root": 2},
    SNAPSHOT: {"root": 2, "timestamp": 2},
    TARGETS: {"root": 2, "timestamp": 2, "snapshot": 2},
}
KEEPS = Intent.ALL_OR_NOTHING


def cases() -> Iterator[Case]:
    def case(name: str, play: Play, intent: Intent | None = None) -> Case:
        return Case(f"test_basic.py::{name}", play, intent)

    yield case("test_basic_refresh_requests", refreshes, Intent.ONE_BUNDLE)
    yield case("test_basic_refresh_trusted_data", trusts_what_is_served)
    yield case("test_implicit_refresh", refreshes_before_it_downloads)
    yield case("test_invalid_initial_root", first_root_without_a_version)
    yield case("test_unsigned_initial_root", first_root_with_another_signature)
    for role, trusted in UNSIGNED.items():
        intent = None if role == ROOT else KEEPS
        yield case(f"test_unsigned_metadata[{role}]", partial(unsigned, role, trusted), intent)
    for role in (ROOT, SNAPSHOT, TARGETS):
        intent = None if role == ROOT else KEEPS
        name = f"test_url_and_metadata_version_mismatch[{role}]"
        yield case(name, partial(name_and_version_differ, role, UNSIGNED[role]), intent)
    yield case("test_timestamp_content_changes", timestamp_changes_without_a_new_version)
    yield case("test_basic_metadata_hash_support", wrong_hash_in_the_snapshot, KEEPS)
    yield case("test_metadata_bytes_match", bytes_are_kept_as_they_are)
    yield case("test_custom_fields", unknown_fields)
    yield case("test_deprecated_keyid_hash_algorithms", odd_keyid_hash_algorithms)
    yield case("test_snapshot_404", snapshot_is_missing, KEEPS)
    yield case("test_targets_404", targets_are_missing, KEEPS)
    yield case("test_timestamp_404", timestamp_is_missing)
    yield case("test_incorrect_metadata_type", snapshot_in_place_of_the_timestamp, KEEPS)
    yield case("test_faketime", clock_can_be_moved)
