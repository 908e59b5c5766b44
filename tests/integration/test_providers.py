"""Apps read the toggles of a running agent with the OpenFeature providers that everybody installs from PyPI."""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.provider import AbstractProvider
from openfeature.provider.no_op_provider import NoOpProvider

from fleet.admin.enrol import Model, enrol
from lab.vehicle import Agent
from tests.agent.car import Car
from tests.integration.generated_rules import BRANDS, CONTEXTS, MARKETS, MODELS, YEARS, definition

pytestmark = pytest.mark.integration
RULES = 200
DEFAULTS: dict[str, Any] = {"boolean": None, "string": None, "integer": None, "float": None, "object": None}
"""The value of an app's own code, which no flag has, so an answer that is an error or a default of the app shows."""


@contextmanager
def client(name: str, provider: AbstractProvider) -> Iterator[OpenFeatureClient]:
    """Return a client of OpenFeature that asks `provider`."""
    # Without waiting, an app gets its own defaults until the provider has read the file.
    api.set_provider_and_wait(provider, name)
    try:
        yield api.get_client(name)
    finally:
        api.set_provider_and_wait(NoOpProvider(), name)


def answers(client: OpenFeatureClient, flags: dict[str, Any]) -> dict[tuple[str, int], tuple[Any, str | None]]:
    """Return value and variant of each flag for each app."""
    found = {}
    for key, (place, (targeting_key, attributes)) in product(flags, enumerate(CONTEXTS)):
        kind = key.partition("-")[0]
        ask = getattr(client, f"get_{kind}_details")
        details = ask(key, DEFAULTS[kind], EvaluationContext(targeting_key, attributes))
        found[key, place] = (details.value, details.variant)
    return found


def become(car: Car, agent: Agent, model: Model, number: int) -> None:
    """Give the running agent the identity of a new vehicle of `model`."""
    folder = car.folder / f"identity-{number}"
    enrol(car.fleet, folder, model, days=2, now=datetime.now(UTC))
    shutil.rmtree(car.identity)
    folder.rename(car.identity)
    ready = agent.said("agent_ready")
    agent.signal(signal.SIGHUP)
    agent.until(lambda: agent.said("agent_ready") == ready + 1, "built anew")


@pytest.mark.timeout(600)
def test_both_providers_give_the_same_answers_for_200_rules_and_every_kind_of_vehicle(tmp_path: Path) -> None:
    document = definition(RULES)
    car = Car.make(tmp_path, sources="")
    car.put_in_force({"toggles.json": json.dumps(document).encode()})
    seen: dict[str, set[Any]] = {key: set() for key in document["flags"]}
    compared = 0
    with car.running() as agent:
        models = [Model(*each) for each in product(BRANDS, MODELS, MARKETS, YEARS)]
        for number, model in enumerate(models):
            become(car, agent, model, number)
            file = str(car.folder / "run" / "flags.flagd.json")
            in_process = FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=file)
            over_http = OFREPProvider(f"http://127.0.0.1:{car.serve_port}")
            with client("file", in_process) as reader, client("ofrep", over_http) as asker:
                by_file, by_ofrep = answers(reader, document["flags"]), answers(asker, document["flags"])
            assert by_file == by_ofrep, f"{model}: the providers disagree"
            compared += len(by_file)
            for (key, _), (_, variant) in by_file.items():
                seen[key].add(variant)
        assert agent.stop() == 0
    assert compared == RULES * len(CONTEXTS) * 24
    # Equal answers mean little if most rules always give the same one.
    assert sum(len(variants) > 1 for variants in seen.values()) > RULES / 2
    assert all(None not in variants for variants in seen.values())
