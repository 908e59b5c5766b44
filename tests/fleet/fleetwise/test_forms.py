"""What botocore's service model allows is read, and what it forbids is refused with its place."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.fleetwise.forms import FormError
from fleet.fleetwise.recognition import Document, documents_in
from tests.fleet.fleetwise.service_model import ROOT_KINDS, documents, faults, is_valid, request

_SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def read(content: dict[str, Any]) -> Document:
    """Return the one document in a file with this content."""
    (found,) = documents_in(json.loads(json.dumps(content)), "file.json")
    assert isinstance(found, Document), found
    return found


def recognisable(operation: str, content: dict[str, Any]) -> bool:
    """Return whether the fields of a request say what it is; a name alone does not."""
    needed = {
        "UpdateDecoderManifest": {"signalDecodersTo", "networkInterfacesTo"},
        "CreateSignalCatalog": {"nodes"},
    }.get(operation)
    return needed is None or any(key.startswith(tuple(needed)) for key in content)


@pytest.mark.parametrize("operation", ROOT_KINDS)
@_SLOW
@given(data=st.data())
def test_what_the_model_allows_is_read(operation: str, data: st.DataObject) -> None:
    content = data.draw(documents(request(operation)).filter(lambda each: recognisable(operation, each)))
    assert is_valid(operation, content)
    found = read(content)
    assert found.kind == ROOT_KINDS[operation]
    found.form()


@pytest.mark.parametrize("operation", ROOT_KINDS)
@_SLOW
@given(data=st.data())
def test_what_the_model_forbids_is_refused_with_its_place(operation: str, data: st.DataObject) -> None:
    content = data.draw(documents(request(operation)).filter(lambda each: recognisable(operation, each)))
    found = [each for each in faults(request(operation), content) if recognisable(operation, each[2])]
    what, place, wrong = data.draw(st.sampled_from(found))
    for each in documents_in(json.loads(json.dumps(wrong)), "file.json"):
        # Without its characteristic field, a document is not recognised, and a list of no known parts is none either.
        if isinstance(each, Document):
            with pytest.raises(FormError) as refused:
                each.form()
            assert refused.value.key == place or each.kind != ROOT_KINDS[operation], (what, str(refused.value))
