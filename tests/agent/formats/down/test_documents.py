"""Test the table of document kinds: paths, size limits, and checks across all documents of a release."""

import pytest

from agent.errors import Permanent
from agent.formats.down.documents import (
    CAMPAIGN,
    KINDS,
    TOGGLES,
    by_kind,
    check_documents,
    kind_of,
    read_document,
    read_documents,
)
from tests.agent.pushes.greeting import GREETING, WITH_GREETINGS
from tests.agent.pushes.world import VEHICLE, campaign, moved, toggles


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        ("toggles.json", "toggles", "toggles"),
        ("campaigns/drive.json", "campaign", "drive"),
        ("campaigns/a.b.json", "campaign", "a.b"),
        ("campaigns/.json", None, None),
        ("campaigns/x/drive.json", None, None),
        ("campaigns/drive.toml", None, None),
        ("x/toggles.json", None, None),
        ("signals/vss.json", None, None),
        ("", None, None),
    ],
)
def test_the_path_says_the_kind(path: str, kind: str | None, name: str | None) -> None:
    found = kind_of(path, KINDS)
    assert (found and found.name, found and found.name_in(path)) == (kind, name)
    assert found is None or found.path_of(found.name_in(path) or "") == path


def test_no_two_kinds_share_a_name_or_a_path() -> None:
    assert len({kind.name for kind in WITH_GREETINGS}) == len(WITH_GREETINGS)
    for kind in WITH_GREETINGS:
        assert kind_of(kind.path_of("x"), WITH_GREETINGS) is kind


def test_a_document_without_a_path_gets_that_of_its_name() -> None:
    assert read_document(CAMPAIGN, campaign("drive"), "any.json").path == "campaigns/drive.json"
    assert read_document(TOGGLES, toggles(), "any.json").path == "toggles.json"
    assert read_document(GREETING, b"hello Aria", "any.txt").path == "greetings/hello.txt"


def test_a_document_beyond_the_size_of_its_kind_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(Permanent, match=r"^any\.txt: the document has 41 bytes; at most 40"):
        read_document(GREETING, b"\xff" * 41, "any.txt")


def test_paths_of_no_kind_are_left_out_and_messages_name_the_path() -> None:
    contents = {"signals/vss.json": b"?", "campaigns/b.json": campaign("b"), "campaigns/a.json": campaign("a")}
    found = read_documents(contents, KINDS, prefix="push 7: ")
    assert [document.source for document in found] == ["push 7: campaigns/a.json", "push 7: campaigns/b.json"]
    assert [document.value.name for document in by_kind(found, KINDS)["campaign"]] == ["a", "b"]
    assert by_kind(found, KINDS)["toggles"] == []


def test_two_campaigns_of_one_name_are_refused_together() -> None:
    contents = {"campaigns/a.json": campaign("a"), "campaigns/b.json": campaign("a")}
    with pytest.raises(Permanent, match=r"^campaigns/b\.json: campaign 'a' is also in campaigns/a\.json; rename"):
        check_documents(read_documents(contents, KINDS), VEHICLE, KINDS)


def test_a_kind_is_checked_against_other_kinds_and_the_vehicle() -> None:
    alone = read_documents({"greetings/hello.txt": b"hello Aria!"}, WITH_GREETINGS)
    with pytest.raises(Permanent, match="needs a campaign"):
        check_documents(alone, None, WITH_GREETINGS)
    both = [*alone, *read_documents({"campaigns/a.json": campaign("a")}, WITH_GREETINGS)]
    check_documents(both, None, WITH_GREETINGS)
    check_documents(both, VEHICLE, WITH_GREETINGS)
    with pytest.raises(Permanent, match="not for Nova"):
        check_documents(both, moved(brand="Nova"), WITH_GREETINGS)
