"""A mapping is pushed as a document: its path, its limits, and what the fleet and the vehicle refuse alike."""

import pytest

from agent.errors import Permanent
from agent.formats.down.documents import CAMPAIGN, DATABASE, KINDS, MAPPING, read_document, refuse_two_definitions

GOOD = b'{"Vehicle.Speed": {"datatype": "float", "dbc2vss": {"signal": "Speed"}}}'


def test_a_mapping_has_the_path_of_its_file_and_comes_between_databases_and_campaigns() -> None:
    document = read_document(MAPPING, GOOD, "fleet/mappings/car.v2.json")
    assert document.path == "mapping/car.v2.json"
    assert [entry.path for entry in document.value.entries] == ["Vehicle.Speed"]
    assert KINDS.index(DATABASE) < KINDS.index(MAPPING) < KINDS.index(CAMPAIGN)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("car.vspec", GOOD, "a vehicle reads mappings in JSON"),
        ("my car.json", GOOD, "rename the file"),
        ("car.json", b"Vehicle.Speed: {}", "car.json: this is not JSON"),
        ("car.json", b"[]", "this is not a mapping"),
        ("car.json", GOOD.replace(b'Speed"}', b'"}'), "Vehicle.Speed: signal must name a CAN signal"),
        ("car.json", b" " * (MAPPING.size_bytes + 1), "bytes are|bytes; at most"),
        (
            "car.json",
            GOOD.replace(b'"Speed"}', b'"Speed", "transform": {"math": "2*-x"}}'),
            "Vehicle.Speed: math '2\\*-x': character 2",
        ),
    ],
)
def test_what_a_vehicle_could_not_apply_is_refused(file: str, content: bytes, words: str) -> None:
    with pytest.raises(Permanent, match=words):
        read_document(MAPPING, content, file)


def test_two_mappings_of_one_vehicle_must_not_define_one_path() -> None:
    documents = [read_document(MAPPING, GOOD, name) for name in ("a.json", "b.json")]
    with pytest.raises(Permanent, match=r"b\.json: VSS path 'Vehicle\.Speed' is also in a\.json"):
        refuse_two_definitions(MAPPING, documents)
