"""What the running agent says of itself, gathered from its parts for `/status`; `agent.status` prints it."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from agent.apply import Applier
from agent.errors import Permanent
from agent.link.keeper import LinkKeeper
from agent.serve.http import Request, Response, Route, json_response
from agent.serve.toggles import ToggleService
from agent.sources.feeder import Feeder
from agent.status import spool_status
from agent.telemetry.collector import Collector
from agent.telemetry.outbox import Outbox
from agent.telemetry.spool import Counts
from agent.telemetry.uplink import UplinkCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStatus:
    """The parts that are asked.  `started_s`: monotonic clock; `broker` as the settings name it."""

    vehicle: str
    broker: str
    started_s: float
    feeders: Sequence[Feeder]
    collector: Collector
    outbox: Outbox
    spool: Callable[[], Counts]
    link: LinkKeeper
    uplink: Callable[[], UplinkCounts]
    applier: Applier
    toggles: ToggleService

    @property
    def routes(self) -> tuple[Route, ...]:
        """For `agent.serve.http.Server`."""
        return (Route("GET", "/status", self._answer),)

    def _answer(self, _: Request) -> Response:
        return json_response(200, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Everything, in plain values for JSON.  Raises Transient where the spool cannot be read."""
        return {
            "running": True,
            "version": version("headunit-agent"),
            "vehicle": self.vehicle,
            "uptime_s": round(time.monotonic() - self.started_s, 1),
            "sources": [
                {"name": feeder.name, "state": str(feeder.state), "problem": feeder.problem} for feeder in self.feeders
            ],
            "telemetry": {
                "frames": dict(self.collector.frames),
                "not_decoded": dict(self.collector.refused),
                "samples": self.outbox.samples,
                "campaigns": [
                    {"name": campaign.name, "revision": campaign.revision} for campaign in self.collector.campaigns
                ],
                "in_memory_bytes": self.outbox.pending_bytes,
                "problem": self.outbox.problem,
            },
            "spool": spool_status(self.spool()),
            "link": {
                "state": self.link.state.value,
                "broker": self.broker,
                "problem": self.link.problem,
                **asdict(self.uplink()),
            },
            "pushes": {
                "version": self.applier.version,
                "in_trial": self.applier.in_trial,
                "refused": dict(self.applier.refused),
                "problem": self.applier.problem,
            },
            "toggles": self._toggle_values(),
        }

    def _toggle_values(self) -> Mapping[str, Any]:
        """Each toggle as it evaluates for the vehicle itself."""
        values: dict[str, Any] = {}
        for key in self.toggles.keys:
            with contextlib.suppress(Permanent):  # a rule that needs the asking app's own context
                evaluation = self.toggles.evaluate(key)
                values[key] = {"value": evaluation.value, "variant": evaluation.variant, "reason": evaluation.reason}
        return values
