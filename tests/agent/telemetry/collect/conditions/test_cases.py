"""The cases of condition-based campaigns give their expected records, however the frames are cut."""

import json
from itertools import pairwise

import numpy as np
import pytest

from agent.errors import Permanent
from agent.telemetry.collect.conditions.records import records_of
from tests import shared_data
from tests.agent.telemetry.collect.conditions import shared_cases

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("name", shared_cases.names())
def test_a_campaign_gives_its_expected_triggers_and_samples(name: str) -> None:
    case = shared_cases.case(name)
    assert shared_cases.difference(case.expected, records_of(case.document, case.plans(), case.blocks())) is None


@pytest.mark.parametrize("name", shared_cases.names())
def test_the_result_does_not_depend_on_how_the_frames_are_cut(name: str) -> None:
    case = shared_cases.case(name)
    random = np.random.default_rng(len(name))
    blocks = []
    for block in case.blocks():
        # Mostly long parts, and a few of one to three frames, which fall between the frames of one message.
        places = random.integers(1, len(block), 12) if len(block) > 1 else np.empty(0, np.int64)
        cuts = sorted({0, len(block), *places.tolist(), *np.minimum(places[:4] + 1, len(block)).tolist()})
        blocks += [block.slice(start, stop) for start, stop in pairwise(cuts)]
    assert shared_cases.difference(case.expected, records_of(case.document, case.plans(), blocks)) is None


def test_documents_that_need_a_database_to_be_refused_are_refused_with_the_place() -> None:
    folder = shared_data.require().parent / "cases" / "refused"
    cases = json.loads((folder / "cases.json").read_text())
    plans = {bus: shared_cases.plan_of(files) for bus, files in cases["dbc"].items()}
    for case in cases["documents"]:
        with pytest.raises(Permanent) as refused:
            records_of(json.loads((folder / case["document"]).read_text()), plans, [])
        message = str(refused.value)
        assert case["field"] in message, case["name"]
        assert all(word in message for word in case["must_contain"]), case["name"]
        if case["at"] is not None:
            place = int(message.partition("character ")[2].partition(":")[0])
            assert case["at"][0] <= place <= case["at"][1], case["name"]
