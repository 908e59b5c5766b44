"""The pushed databases of a bus, their order, match and encodings follow from the documents alone."""

import pytest

from agent.errors import Permanent
from agent.formats.down.databases import name_of_file
from agent.formats.down.documents import DATABASE, KINDS, by_kind, check_documents, databases_in, read_documents
from tests.agent.pushes.world import VEHICLE

A, B = b"content of a", b"content of b"


def found(settings: str = "", **more: bytes) -> list[tuple[str, str | None, list[tuple[str, bytes, str | None]]]]:
    contents = {"dbc/can0/a.dbc": A, "dbc/can0/b.dbc": B} | more
    if settings:
        contents["settings.toml"] = settings.encode()
    release = read_documents(contents, KINDS)
    check_documents(release, VEHICLE, KINDS)
    return [
        (bus.bus, bus.match, [(each.path, each.content, each.encoding) for each in bus.databases])
        for bus in databases_in(by_kind(release, KINDS))
    ]


def test_without_a_table_a_bus_uses_all_its_databases_in_the_order_of_their_names() -> None:
    assert found(**{"dbc/body/a.dbc": B}) == [
        ("body", None, [("dbc/body/a.dbc", B, None)]),
        ("can0", None, [("dbc/can0/a.dbc", A, None), ("dbc/can0/b.dbc", B, None)]),
    ]


def test_a_table_says_the_order_the_match_and_the_encodings() -> None:
    table = '[bus.can0]\ndbc = [{file = "b.dbc", encoding = "gbk"}, "a.dbc"]\nmatch = "pgn"'
    assert found(table) == [("can0", "pgn", [("dbc/can0/b.dbc", B, "gbk"), ("dbc/can0/a.dbc", A, None)])]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            'dbc = ["a.dbc", "c.dbc"]',
            r"^settings\.toml: bus\.can0\.dbc names c\.dbc, but dbc/can0/c\.dbc is not published",
        ),
        ('dbc = ["b.dbc"]', r"^dbc/can0/a\.dbc: bus\.can0\.dbc in settings\.toml does not name this database"),
    ],
)
def test_a_table_and_the_databases_of_its_bus_must_fit_together(table: str, message: str) -> None:
    with pytest.raises(Permanent, match=message):
        found(f"[bus.can0]\n{table}")


def test_a_table_of_a_bus_without_databases_is_refused() -> None:
    with pytest.raises(Permanent, match=r"bus\.can7\.dbc names x\.dbc, but dbc/can7/x\.dbc is not published"):
        found('[bus.can7]\ndbc = ["x.dbc"]')


def test_a_database_has_the_name_of_its_bus_and_its_file() -> None:
    assert name_of_file("/home/me/can0/powertrain.dbc") == "can0/powertrain.dbc"
    assert DATABASE.path_of("can0/powertrain.dbc") == "dbc/can0/powertrain.dbc"
    assert DATABASE.name_in("dbc/can0/powertrain.dbc") == "can0/powertrain.dbc"
    assert DATABASE.name_in("dbc/powertrain.dbc") is None
    for file, message in (
        ("powertrain.dbc", "must have the name of its bus; copy the file to can0/powertrain.dbc"),
        ("my cars/powertrain.dbc", "must have the name of its bus"),
        ("can0/powertrain.arxml", "only DBC files can be pushed"),
        ("can0/power train.dbc", "only DBC files can be pushed, and their names may have only letters"),
    ):
        with pytest.raises(Permanent, match=message):
            name_of_file(file)
