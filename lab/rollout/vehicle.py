"""A virtual vehicle that takes pushes with the agent's own code, and sends its receipts as sealed batches.

The push store on the disk, the verification and the checks of the documents are those of the agent.  The verification
runs in this process, because 200 child processes would only measure the machine.  The trial is shortened, and its
result is given: a vehicle for which `fails` is true takes the new release back, as an unhealthy agent does.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from agent import __version__
from agent.formats import topics
from agent.formats.down.audience import Attributes
from agent.formats.topics import Lane
from agent.formats.up.columns import Clock, ClockQuality, Event, Window
from agent.formats.up.encode import encode_window
from agent.link.endpoint import Endpoint
from agent.link.mqtt import Connection
from agent.pushes.pushes import Pushes
from agent.pushes.receipts import PushOutcome, Result, receipt
from agent.pushes.release import Question, Release, Verdict
from agent.pushes.verifier import judge
from lab.simulate.vehicle import ASK_AGAIN_S, Fleet, Vehicle

TRIAL_S = 0.3


class PushedVehicle(Vehicle):
    """Simulates one vehicle that takes pushes.  `fails` says whether the vehicle fails with a release."""

    def __init__(
        self,
        vehicle: Attributes,
        key: ec.EllipticCurvePrivateKey,
        endpoint: Endpoint,
        fleet: Fleet,
        *,
        folder: Path,
        trusted_root: bytes,
        fails: Callable[[Release], bool],
    ) -> None:
        super().__init__(vehicle.vehicle, key, endpoint, fleet)
        self.pushes = Pushes.open(folder, trusted_root=trusted_root, vehicle=vehicle, examine_bundle=_examine)
        self.had: set[bytes] = set()
        """The contents of all documents that were ever in force."""
        self._fails = fails
        self._bundles: asyncio.Queue[bytes] = asyncio.Queue()

    async def work(self) -> None:
        """Take the bundles that arrive, one after the other.  Run until cancelled."""
        await self._report(Event(_now_us(), "agent_started", {"version": __version__}))
        await self.pushes.begin()
        while True:
            await self._settle(await self.pushes.offer(await self._bundles.get()))

    async def _ask(self, connection: Connection) -> None:
        self.sent.asked_s, self.sent.answered_s = time.monotonic(), 0.0
        while not self.sent.answered_s:
            self._answered.clear()
            await connection.publish(topics.sync(self.name), self.pushes.sync_request())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(*ASK_AGAIN_S)):  # noqa: S311 (spreads load)
                    await self._answered.wait()

    def _take_bundle(self, payload: bytes) -> None:
        self.sent.answered_s, self.sent.bundle_bytes = time.monotonic(), len(payload)
        self._answered.set()
        self._bundles.put_nowait(payload)

    async def _settle(self, outcome: PushOutcome) -> None:
        await self._report(receipt(outcome, _now_us()))
        release = self.pushes.current()
        if outcome.result is not Result.APPLIED or release is None:
            return
        self.had.update(release.documents.values())
        await asyncio.sleep(TRIAL_S)
        if self._fails(release):
            ended = await self.pushes.fail_trial("the simulated agent does not work with this release")
        else:
            ended = await self.pushes.confirm_trial()
        if ended is not None:
            await self._report(receipt(ended, _now_us()))

    async def _report(self, event: Event | None) -> None:
        if event is not None:
            clock = Clock(ClockQuality.NETWORK, "", event.t_us, 0)
            window = Window("", "", event.t_us, event.t_us + 1, clock, (), (event,))
            await self._seal_and_send(Lane.EVENTS, encode_window(window), samples=0)


async def _examine(question: Question) -> Verdict:
    return await asyncio.to_thread(judge, question)


def _now_us() -> int:
    return time.time_ns() // 1_000
