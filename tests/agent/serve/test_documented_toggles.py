"""What docs/toggles.md says to developers of apps is true."""

import asyncio
import re
from pathlib import Path
from typing import Any

from agent.formats.down.evaluation import vehicle_context
from agent.formats.down.toggles import parse_toggles
from agent.formats.down.validity import _NAMES, Moment, states_at, validities_in
from agent.serve.toggles import ToggleService
from tests.agent.serve.serving import serving
from tests.agent.serve.test_changes import FLAGS
from tests.agent.serve.test_toggles import CAR

TEXT = (Path(__file__).parents[3] / "docs" / "toggles.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_sample_of_features_on_demand_is_valid_and_uses_every_term() -> None:
    (sample,) = blocks("json")
    toggles = parse_toggles(sample.encode(), "docs/toggles.md")
    states = states_at(validities_in(toggles.resolved), Moment(1_790_000_000, 1_790_000_000, 1_790_000_000))
    assert states["heated-seats"].feature == "before"
    assert all(f'"{name}"' in sample and f"| `{name}` |" in TEXT for name in _NAMES)


def test_the_table_of_the_context_has_every_attribute_of_the_vehicle() -> None:
    part = TEXT.partition("## The evaluation context")[2].partition("##")[0]
    assert all(f"`{name}`" in part for name in vehicle_context(CAR))


def test_the_sample_code_hears_of_each_change() -> None:
    code: dict[str, Any] = {}
    (sample,) = (block for block in blocks("python") if "def changes(" in block)
    exec(sample, code)

    async def run() -> list[str]:
        service = ToggleService(CAR)
        service.replace(FLAGS, "one")
        async with serving(service.routes) as served:
            changes = code["changes"](served.port)
            first = await asyncio.to_thread(next, changes)
            service.replace(FLAGS, "two")
            return [first, await asyncio.to_thread(next, changes)]

    assert asyncio.run(run()) == ["one", "two"]
