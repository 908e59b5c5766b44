"""The slow evaluator gives the expected records of all shared cases, so it may judge the fast one."""

import json

import pytest

from tests import shared_data
from tests.conditions import shared_cases
from tests.conditions.compare import difference
from tests.conditions.language import Refused
from tests.conditions.machine import SlowCampaign

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("entry", shared_cases.entries(), ids=lambda entry: entry["name"])
def test_the_slow_evaluator_gives_the_expected_records(entry) -> None:
    folder = shared_cases.CASES / "conditions"
    rows = shared_cases.rows(entry)
    campaign = SlowCampaign(json.loads((folder / entry["campaign"]).read_text()), rows.known())
    for row in rows.decode(shared_cases.frames(entry["log"])):
        campaign.take(row)
    campaign.end()
    expected = [json.loads(line) for line in shared_cases.lines(folder / entry["expected"])]
    assert difference(expected, campaign.records) is None
    assert sum(record["k"] == "trigger" for record in campaign.records) == entry["triggers"]


def test_the_slow_evaluator_refuses_what_must_be_refused_with_its_place() -> None:
    folder = shared_data.require().parent / "cases" / "refused"
    cases = shared_cases.entries("refused")
    known = shared_cases.rows(cases).known()
    for case in cases["documents"]:
        with pytest.raises(Refused) as refused:
            SlowCampaign(json.loads((folder / case["document"]).read_text()), known)
        assert refused.value.field == case["field"], case["name"]
        if case["at"] is not None:
            assert case["at"][0] <= refused.value.places[0][0] <= case["at"][1], case["name"]


def test_the_cases_are_there() -> None:
    """This test skips, or fails with REQUIRE_SHARED=1, where the others have no parameters."""
    shared_data.require()
    assert len(shared_cases.entries()) >= 26
