"""The figures of the spool in `/status` are fresh, and a disk that hangs does not delay the answer."""

import asyncio
import dataclasses
import threading
import time
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.formats.up.columns import Event
from agent.runtime.live_status import SpoolAccount
from agent.telemetry.spool.account import Counts
from tests.agent.telemetry.spool.depot import Depot


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "spool")


def test_each_answer_has_the_figures_of_its_moment(depot: Depot) -> None:
    async def ask() -> list[int]:
        account, found = SpoolAccount(depot.spool.counts), []
        for number in range(3):
            found.append((await account.figures())["waiting"])
            depot.outbox.add_event(Event(number, "told", {}))
            depot.outbox.flush()
        return found

    assert asyncio.run(ask()) == [0, 1, 2]


def test_an_answer_waits_for_a_reading_that_began_after_the_question(depot: Depot) -> None:
    begun, go_on, figures = threading.Event(), threading.Event(), [depot.spool.counts()]

    def read() -> Counts:
        found = figures[-1]
        begun.set()
        assert go_on.wait(10)
        return found

    async def ask() -> tuple[object, object]:
        go_on.set()
        account = await asyncio.to_thread(SpoolAccount, read)
        go_on.clear()
        begun.clear()
        first = asyncio.create_task(account.figures(patience_s=10))
        await asyncio.to_thread(begun.wait, 10)
        figures.append(dataclasses.replace(figures[0], next_seq=7))
        second = asyncio.create_task(account.figures(patience_s=10))
        await asyncio.sleep(0.05)
        go_on.set()
        return (await first)["next_seq"], (await second)["next_seq"]

    assert asyncio.run(ask()) == (figures[0].next_seq, 7)


def test_a_disk_that_hangs_delays_no_answer_and_is_named(depot: Depot) -> None:
    account = SpoolAccount(depot.spool.counts)
    depot.outbox.add_event(Event(1, "told", {}))
    depot.disk.free.clear()
    storing = threading.Thread(target=depot.outbox.flush)
    storing.start()
    time.sleep(0.2)  # by now the reader holds the spool's lock
    started = time.monotonic()

    async def ask() -> tuple[object, object]:
        hanging = await account.figures(patience_s=0.05)
        waited_s = time.monotonic() - started
        depot.disk.free.set()
        assert waited_s < 2.0
        await asyncio.to_thread(storing.join)
        return hanging["problem"], (await account.figures(patience_s=10))["problem"]

    hanging, later = asyncio.run(ask())
    assert "the disk is busy" in str(hanging)
    assert later is None


def test_an_index_that_fails_is_named_beside_the_last_figures(depot: Depot) -> None:
    answers = [dataclasses.replace(depot.spool.counts(), next_seq=7)]

    def read() -> object:
        if answers:
            return answers.pop()
        raise Transient("the index is out of reach")

    account = SpoolAccount(read)  # type: ignore[arg-type]
    found = asyncio.run(account.figures())
    assert (found["next_seq"], found["problem"]) == (7, "the index is out of reach")
