"""TUF and our own checks refuse each named attack on a bundle.  These tests start no verifier process."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata

from agent.errors import Permanent
from agent.formats.down.audience import parse_audience
from agent.formats.down.bundle import TIMESTAMP, Versions, build_bundle
from agent.pushes.release import Question, Reason, Refused
from agent.pushes.trust import Trusted, verify
from fleet.publishing import repository
from tests.agent.pushes.world import NOW, VEHICLE, Fleet, campaign, moved, question, toggles


def refusal(asked: Question) -> Reason:
    with pytest.raises(Refused) as refused:
        verify(asked)
    return refused.value.reason


def next_question(fleet: Fleet, before: Trusted, bundle: bytes | dict[str, bytes], **changes: object) -> Question:
    """Return the question about `bundle` of a vehicle that holds the result `before`."""
    known = {"metadata": before.metadata, "floor": before.versions}
    return question(fleet, bundle, **(known | changes))


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :]


def target(files: dict[str, bytes]) -> str:
    return next(name for name in files if name.startswith("targets/"))


def test_a_genuine_bundle_gives_the_release(fleet: Fleet) -> None:
    fleet.publish(toggles(), campaign("a"), campaign("b"))
    trusted = verify(question(fleet, fleet.bundle()))
    assert trusted.versions == Versions(root=1, timestamp=2, snapshot=2, targets=2)
    assert trusted.release is not None
    assert trusted.release.documents == {
        "campaigns/a.json": campaign("a"),
        "campaigns/b.json": campaign("b"),
        "toggles.json": toggles(),
    }
    assert trusted.signed_at_s == int(NOW.timestamp())


def test_only_what_is_missing_travels_the_second_time(fleet: Fleet) -> None:
    fleet.publish(toggles(), campaign("a"))
    first = verify(question(fleet, fleet.bundle()))
    assert first.release is not None
    fleet.publish(toggles(False))
    files = fleet.files(first.versions)
    files.pop(next(name for name in files if "a.json" in name))
    second = verify(next_question(fleet, first, files, contents=tuple(first.release.documents.values())))
    assert second.release is not None
    assert second.release.documents == {"campaigns/a.json": campaign("a"), "toggles.json": toggles(False)}


@pytest.mark.parametrize("name", ["timestamp", "snapshot", "targets"])
def test_tampered_metadata_is_refused(fleet: Fleet, name: str) -> None:
    fleet.publish(toggles())
    files = fleet.files()
    path = next(path for path in files if path.endswith(f"{name}.json"))
    metadata = json.loads(files[path])
    metadata["signed"]["expires"] = "2099-01-01T00:00:00Z"
    files[path] = json.dumps(metadata).encode()
    assert refusal(question(fleet, files)) is Reason.TAMPERED


@pytest.mark.parametrize("content", [b'{"flags":{}}', b"", toggles() + b" "])
def test_a_tampered_target_is_refused(fleet: Fleet, content: bytes) -> None:
    fleet.publish(toggles())
    files = fleet.files()
    files[target(files)] = content
    assert refusal(question(fleet, files)) is Reason.TAMPERED


def test_metadata_that_is_no_json_is_refused_as_tampered(fleet: Fleet) -> None:
    fleet.publish(toggles())
    assert refusal(question(fleet, fleet.files() | {TIMESTAMP: b"{"})) is Reason.TAMPERED


def test_a_bundle_cut_short_is_refused_as_truncated(fleet: Fleet) -> None:
    fleet.publish(toggles())
    bundle = fleet.bundle()
    for length in range(12, len(bundle), 97):
        assert refusal(question(fleet, bundle[:length])) in (Reason.TRUNCATED, Reason.MALFORMED)
    assert refusal(question(fleet, bundle[:-1])) is Reason.TRUNCATED


def test_each_missing_file_is_refused_as_truncated(fleet: Fleet) -> None:
    fleet.publish(toggles(), campaign())
    files = fleet.files()
    assert len(files) == 5
    for name in files:
        rest = {other: content for other, content in files.items() if other != name}
        assert refusal(question(fleet, rest)) is Reason.TRUNCATED, name


def test_oversized_metadata_is_refused(fleet: Fleet) -> None:
    fleet.publish(toggles())
    files = fleet.files()
    assert refusal(question(fleet, files | {TIMESTAMP: files[TIMESTAMP] + b" " * 600_000})) is Reason.OVERSIZED


def test_an_older_bundle_is_refused_as_rollback(fleet: Fleet) -> None:
    fleet.publish(toggles(False))
    old = fleet.bundle()
    fleet.publish(toggles())
    new = verify(question(fleet, fleet.bundle()))
    assert refusal(next_question(fleet, new, old)) is Reason.ROLLBACK


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 400])
def test_an_older_bundle_is_refused_although_a_power_cut_emptied_the_metadata(fleet: Fleet, content: bytes) -> None:
    fleet.publish(toggles(False))
    old = fleet.bundle()
    fleet.publish(toggles())
    new = verify(question(fleet, fleet.bundle()))
    assert verify(next_question(fleet, new, old, floor=Versions(), metadata={})).versions.targets == 2  # no floor
    assert refusal(next_question(fleet, new, old, metadata={})) is Reason.ROLLBACK
    emptied = dict.fromkeys(new.metadata, content)
    assert refusal(next_question(fleet, new, old, metadata=emptied)) is Reason.ROLLBACK


def test_the_same_bundle_again_changes_nothing(fleet: Fleet) -> None:
    fleet.publish(toggles())
    bundle = fleet.bundle()
    first = verify(question(fleet, bundle))
    again = verify(next_question(fleet, first, bundle, settled=(2,)))
    assert (again.versions, again.metadata, again.release) == (first.versions, first.metadata, None)


def test_another_fleets_bundle_is_refused_as_foreign(fleet: Fleet, tmp_path: Path) -> None:
    other = Fleet(tmp_path / "other")
    other.publish(toggles())
    assert refusal(question(fleet, other.bundle())) is Reason.FOREIGN_KEY


def test_a_key_of_another_role_is_refused_as_foreign(fleet: Fleet) -> None:
    fleet.publish(toggles())
    metadata = Metadata.from_bytes(fleet.files()[TIMESTAMP])
    metadata.sign(fleet.signer("snapshot"))
    assert refusal(question(fleet, fleet.files() | {TIMESTAMP: metadata.to_bytes()})) is Reason.FOREIGN_KEY


def test_a_root_signed_by_one_of_two_is_refused(fleet: Fleet) -> None:
    fleet.rotate_root(("root1",))
    fleet.publish(toggles())
    assert refusal(question(fleet, fleet.bundle())) is Reason.UNDERSIGNED


def test_a_root_signed_by_two_is_followed(fleet: Fleet) -> None:
    fleet.rotate_root(("root1", "root3"), replace_key="timestamp")
    fleet.rotate_root(("root2", "root3"))
    fleet.publish(toggles())
    trusted = verify(question(fleet, fleet.bundle()))
    assert trusted.versions.root == 3
    assert set(trusted.metadata) >= {"root_history/2.root.json", "root_history/3.root.json"}


def test_a_root_held_may_not_be_forgotten(fleet: Fleet) -> None:
    fleet.publish(toggles())
    old = fleet.bundle()
    fleet.rotate_root(("root1", "root2"))
    fleet.publish(toggles(False))
    new = verify(question(fleet, fleet.bundle()))
    assert refusal(next_question(fleet, new, old, metadata={}, floor=Versions(root=2))) is Reason.ROLLBACK


@pytest.mark.parametrize(("inside", "reason"), [(2, Reason.ROLLBACK), (4, Reason.MIX_AND_MATCH)])
def test_a_root_whose_name_is_newer_than_its_content_is_refused(fleet: Fleet, inside: int, reason: Reason) -> None:
    for _ in range(3):
        fleet.rotate_root(("root1", "root2"))
    fleet.publish(toggles())
    files = fleet.files()
    third = files.pop("metadata/4.root.json") if inside == 4 else files["metadata/2.root.json"]
    assert refusal(question(fleet, files | {"metadata/3.root.json": third})) is reason


def forward(fleet: Fleet, versions: Versions) -> Versions:
    """Sign the published targets again, so that the next versions of the three online roles follow `versions`."""
    state = repository.read_state(fleet.folder.metadata)
    before = Versions(state.root, versions.timestamp, versions.snapshot, versions.targets)
    return repository.write_version(fleet.folder, before, state.targets.targets, {}, bins=None, now=NOW, expiry_days=90)


FAR = Versions(timestamp=9_999, snapshot=9_999, targets=9_999)
"""The versions that a thief of the online keys signs, so that no honest version is ever newer."""
FAST_FORWARDS = {
    "timestamp": Versions(timestamp=9_999, snapshot=1, targets=1),
    "snapshot": Versions(timestamp=1, snapshot=9_999, targets=1),
    "targets": Versions(timestamp=1, snapshot=1, targets=9_999),
    "all": FAR,
}


@pytest.mark.parametrize("kept", [True, False], ids=["held", "lost"])
@pytest.mark.parametrize("replaced", [("timestamp",), ("snapshot",), ("snapshot", "timestamp")])
@pytest.mark.parametrize("attack", FAST_FORWARDS)
@pytest.mark.attack(
    "21",
    "versions of metadata are fast-forwarded by whoever had the keys",
    how="An attacker signs the largest versions, and the fleet publishes new keys.",
    before="recovery of targets was refused",
)
def test_a_fast_forward_ends_with_new_keys_of_timestamp_or_snapshot(
    fleet: Fleet, attack: str, replaced: tuple[str, ...], kept: bool
) -> None:
    fleet.publish(toggles())
    forward(fleet, FAST_FORWARDS[attack])
    seen = verify(question(fleet, fleet.bundle()))
    assert 10_000 in (seen.versions.timestamp, seen.versions.snapshot, seen.versions.targets)
    known = {} if kept else {"metadata": {}}
    forward(fleet, Versions(timestamp=2, snapshot=2, targets=2))
    assert refusal(next_question(fleet, seen, fleet.bundle(), **known)) is Reason.ROLLBACK
    for role in replaced:
        fleet.rotate_root(("root1", "root2"), replace_key=role)
    honest = forward(fleet, Versions(timestamp=2, snapshot=2, targets=2))
    recovered = verify(next_question(fleet, seen, fleet.bundle(), **known))
    assert recovered.versions == honest == Versions(1 + len(replaced), 3, 3, 3)
    assert recovered.release is not None
    # The new versions are protected like any others.
    forward(fleet, Versions(timestamp=3, snapshot=1, targets=1))
    assert refusal(next_question(fleet, recovered, fleet.bundle())) is Reason.ROLLBACK


@pytest.mark.parametrize("kept", [True, False], ids=["held", "lost"])
@pytest.mark.parametrize("replaced", ["", "targets"], ids=["no key", "key of targets"])
@pytest.mark.parametrize("attack", FAST_FORWARDS)
def test_a_new_root_without_new_keys_of_timestamp_or_snapshot_allows_no_rollback(
    fleet: Fleet, attack: str, replaced: str, kept: bool
) -> None:
    fleet.publish(toggles())
    forward(fleet, FAST_FORWARDS[attack])
    seen = verify(question(fleet, fleet.bundle()))
    fleet.rotate_root(("root1", "root2"), replace_key=replaced)
    forward(fleet, Versions(timestamp=2, snapshot=2, targets=2))
    known = {} if kept else {"metadata": {}}
    assert refusal(next_question(fleet, seen, fleet.bundle(), **known)) is Reason.ROLLBACK


@pytest.mark.parametrize("kept", [True, False], ids=["held", "lost"])
def test_a_further_key_beside_the_old_one_allows_no_rollback(fleet: Fleet, kept: bool) -> None:
    fleet.publish(toggles(False))
    old = fleet.files()
    fleet.publish(toggles())
    seen = verify(question(fleet, fleet.bundle()))
    fleet.rotate_root(("root1", "root2"), add_key="timestamp")
    replayed = old | {"metadata/2.root.json": fleet.files()["metadata/2.root.json"]}
    known = {} if kept else {"metadata": {}}
    assert refusal(next_question(fleet, seen, replayed, **known)) is Reason.ROLLBACK


def test_genuine_files_of_two_versions_are_refused_as_mix_and_match(fleet: Fleet) -> None:
    fleet.publish(toggles(False))
    old = fleet.files()
    fleet.publish(toggles())
    new = fleet.files()
    snapshot = new | {"metadata/3.snapshot.json": old["metadata/2.snapshot.json"]}
    assert refusal(question(fleet, snapshot)) is Reason.MIX_AND_MATCH
    targets = new | {"metadata/3.targets.json": old["metadata/2.targets.json"]}
    assert refusal(question(fleet, targets)) is Reason.MIX_AND_MATCH


def test_a_repository_that_nobody_signs_any_more_is_refused_as_expired(fleet: Fleet) -> None:
    fleet.publish(toggles(), expiry_days=7)
    late = int((NOW + timedelta(days=8)).timestamp())
    assert refusal(question(fleet, fleet.bundle(), now_s=late)) is Reason.EXPIRED


def test_a_refreshed_timestamp_ends_the_freeze_and_applies_nothing_again(fleet: Fleet) -> None:
    fleet.publish(toggles(), expiry_days=7)
    first = verify(question(fleet, fleet.bundle()))
    later = NOW + timedelta(days=8)
    fleet.publish(now=later)
    files = fleet.files(first.versions)
    assert [name for name in files if not name.startswith("targets/")] == [TIMESTAMP]
    again = verify(next_question(fleet, first, files, now_s=int(later.timestamp()), settled=(2,)))
    assert again.versions == Versions(root=1, timestamp=3, snapshot=2, targets=2)
    assert again.release is None


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        ("", True),
        ("brand=Aria", True),
        ("brand=Aria,brand=Nova,model_year=2026", True),
        (f"vehicle={VEHICLE.vehicle}", True),
        ("vehicle=11111111-2222-4333-8444-555555555555", False),
        ("brand=Nova", False),
        ("brand=Aria,market=US", False),
        ("model_year=2025", False),
        ("brand=Nova;market=DE", True),
        ("brand=Nova;market=US", False),
        # The vehicle draws 0.5558 for this document.
        ("percent=55.58", False),
        ("percent=55.59", True),
        ("brand=Nova,percent=100;percent=55.59", True),
    ],
)
def test_a_target_for_others_is_ignored(fleet: Fleet, audience: str, expected: bool) -> None:
    fleet.publish(None, campaign(), audience=parse_audience(audience))
    content = {
        f"targets/{file.parent.name}/{file.name}": file.read_bytes() for file in fleet.folder.targets.rglob("*.json")
    }
    release = verify(question(fleet, fleet.files() | content)).release
    assert release is not None
    assert list(release.documents.values()) == ([campaign()] if expected else [])


def test_a_target_for_other_software_is_ignored(fleet: Fleet) -> None:
    fleet.publish(None, campaign(), audience=parse_audience("software=4.2"))
    for software, expected in (("4.2", [campaign()]), ("4.1", []), ("", [])):
        vehicle = moved(software=software)
        release = verify(question(fleet, fleet.bundle(vehicle=vehicle), vehicle=vehicle)).release
        assert release is not None
        assert list(release.documents.values()) == expected


def test_a_target_for_others_may_be_missing(fleet: Fleet) -> None:
    fleet.publish(None, campaign(), audience=({"brand": ("Nova",)},))
    files = {name: content for name, content in fleet.files().items() if not name.startswith("targets/")}
    assert verify(question(fleet, files)).release is not None
    assert refusal(question(fleet, files, vehicle=moved(brand="Nova"))) is Reason.TRUNCATED


def test_targets_that_this_agent_does_not_know_are_left_alone(fleet: Fleet) -> None:
    fleet.sign_as_is("signals/vss.json", b"{}")
    release = verify(question(fleet, fleet.bundle())).release
    assert release is not None
    assert release.documents == {}


def test_a_broken_factory_root_is_the_vehicles_fault_not_the_bundles(fleet: Fleet) -> None:
    fleet.publish(toggles())
    with pytest.raises(Permanent, match="enrol the vehicle again"):
        verify(question(fleet, fleet.bundle(), trusted_root=b"{}"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_garbage_in_any_file_is_refused_and_nothing_else(fleet: Fleet, data: st.DataObject) -> None:
    if not list(fleet.folder.targets.iterdir()):
        fleet.publish(toggles(), campaign())
    files = fleet.files()
    name = data.draw(st.sampled_from(sorted(files)))
    garbage = data.draw(
        st.binary(max_size=200) | st.integers(0, len(files[name]) - 1).map(lambda at: flip(files[name], at))
    )
    with pytest.raises(Refused):
        verify(question(fleet, build_bundle(files | {name: garbage})))
