"""Show what a thief of one signing key can do to a vehicle, if the thief also decides what the broker delivers."""

from datetime import timedelta
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

from agent.formats.down.bundle import TIMESTAMP
from agent.formats.down.documents import TOGGLES
from agent.pushes.release import Question, Reason, Refused
from agent.pushes.trust import Trusted, verify
from fleet.publishing import repository
from tests.agent.pushes.world import NOW, Fleet, question, toggles

LATER = NOW + timedelta(days=120)
"""A time at which the honest timestamp has expired, because the thief lets no newer one through."""
EVIL = toggles(False)
PATH = TOGGLES.path_of("toggles")


def signed(fleet: Fleet, metadata: Any, *names: str) -> bytes:
    file: Metadata[Any] = Metadata(metadata)
    for name in names:
        file.sign(fleet.signer(name), append=True)
    return file.to_bytes()


@pytest.fixture
def honest(fleet: Fleet) -> Trusted:
    fleet.publish(toggles())
    return verify(question(fleet, fleet.bundle()))


def again(fleet: Fleet, held: Trusted, files: dict[str, bytes], **changes: object) -> Question:
    known = {"metadata": held.metadata, "floor": held.versions}
    return question(fleet, files, **(known | changes))


def refusal(asked: Question) -> Reason:
    with pytest.raises(Refused) as refused:
        verify(asked)
    return refused.value.reason


def evil_targets(fleet: Fleet) -> tuple[int, dict[str, bytes], bytes]:
    """Return the next version of the targets with a document of the thief, and their files."""
    target = TargetFile.from_data(PATH, EVIL, ["sha256"])
    version = repository.read_state(fleet.folder.metadata).targets.version + 1
    content = signed(fleet, Targets(version, expires=LATER, targets={PATH: target}), "targets")
    files = {
        f"metadata/{version}.targets.json": content,
        f"targets/{repository.stored_name(target)}": EVIL,
    }
    return version, files, content


def test_a_thief_of_the_targets_key_changes_no_document(fleet: Fleet, honest: Trusted) -> None:
    version, files, content = evil_targets(fleet)
    assert refusal(again(fleet, honest, files | {TIMESTAMP: fleet.files()[TIMESTAMP]}, metadata={})) in (
        Reason.TRUNCATED,
        Reason.MIX_AND_MATCH,
    )
    listed = {"targets.json": MetaFile.from_data(version, content, ["sha256"])}
    snapshot = signed(fleet, Snapshot(version, expires=LATER, meta=listed), "targets")
    stamp = signed(fleet, Timestamp(version, expires=LATER, snapshot_meta=MetaFile(version)), "targets")
    files |= {TIMESTAMP: stamp, f"metadata/{version}.snapshot.json": snapshot}
    assert refusal(again(fleet, honest, files)) is Reason.FOREIGN_KEY


def test_a_thief_of_the_snapshot_key_changes_no_document(fleet: Fleet, honest: Trusted) -> None:
    files = fleet.files()
    name = next(name for name in files if name.endswith("snapshot.json"))
    older = signed(fleet, Snapshot(2, expires=LATER, meta={"targets.json": MetaFile(1)}), "snapshot")
    assert refusal(question(fleet, files | {name: older})) is Reason.MIX_AND_MATCH


def test_a_thief_of_the_timestamp_key_changes_no_document_but_keeps_a_vehicle_where_it_is(
    fleet: Fleet, honest: Trusted
) -> None:
    later = {"now_s": int(LATER.timestamp())}
    assert refusal(again(fleet, honest, fleet.files(), **later)) is Reason.EXPIRED
    state = repository.read_state(fleet.folder.metadata)
    meta = state.timestamp.snapshot_meta
    stamp = Timestamp(state.timestamp.version + 1, expires=LATER + timedelta(days=900), snapshot_meta=meta)
    frozen = verify(again(fleet, honest, {TIMESTAMP: signed(fleet, stamp, "timestamp")}, **later, settled=(2,)))
    assert (frozen.versions.targets, frozen.release) == (honest.versions.targets, None)


def test_a_thief_of_one_root_key_replaces_no_key(fleet: Fleet, honest: Trusted) -> None:
    fleet.rotate_root(("root1",), replace_key="targets")
    fleet.publish(EVIL)
    assert refusal(again(fleet, honest, fleet.files())) is Reason.UNDERSIGNED


def test_a_thief_of_all_three_online_keys_is_obeyed_until_the_root_replaces_them(fleet: Fleet, honest: Trusted) -> None:
    fleet.publish(EVIL)
    obeyed = verify(again(fleet, honest, fleet.files()))
    assert obeyed.release is not None
    assert EVIL in obeyed.release.documents.values()
    thief = {name: fleet.signer(name) for name in ("targets", "snapshot", "timestamp")}
    for name in thief:
        fleet.rotate_root(("root1", "root2"), replace_key=name)
    fleet.publish(toggles())
    rescued = verify(again(fleet, obeyed, fleet.files()))
    assert rescued.versions.root == 4
    files = fleet.files()
    stamp: Metadata[Any] = Metadata.from_bytes(files[TIMESTAMP])
    stamp.signed.version += 1
    stamp.sign(thief["timestamp"])
    assert refusal(again(fleet, rescued, files | {TIMESTAMP: stamp.to_bytes()})) is Reason.FOREIGN_KEY
