"""What the agent is doing: the document that `/status` serves and `headunit-agent status` prints.

`fetch` asks the running agent over loopback; where none runs, it reads what the spool on the disk says, and changes
nothing there, so that every batch is accounted for after a crash too.
"""

import http.client
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agent.errors import Permanent, Transient
from agent.formats.up.ledger import Span, State
from agent.settings.settings import Loaded
from agent.telemetry.spool.account import Counts, counts_on_disk, ledger_on_disk

TIMEOUT_S: Final = 5.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def spool_status(counts: Counts) -> dict[str, Any]:
    """Return the spool's account: every sequence number below `next_seq` is acknowledged, waiting or lost.

    `adopted` counts batches with numbers of other epochs, which share the other figures.  `checkpoints` of open windows
    have no number of the spool.
    """
    return {
        "epoch": counts.epoch,
        "next_seq": counts.next_seq,
        "acknowledged": counts.acknowledged,
        "waiting": counts.batches,
        "waiting_bytes": counts.size_bytes,
        "adopted": counts.adopted,
        "checkpoints": counts.checkpoints[0],
        "checkpoints_bytes": counts.checkpoints[1],
        "lanes": {lane.label: {"batches": n, "bytes": size} for lane, (n, size) in counts.lanes.items()},
        "oldest_stored_at": None
        if counts.oldest_stored_at_s is None
        else datetime.fromtimestamp(counts.oldest_stored_at_s, UTC).isoformat(timespec="seconds"),
        "lost": {
            str(reason): {"batches": total.batches, "samples": total.samples, "frames": total.frames}
            for reason, total in counts.lost.items()
        },
    }


def fetch(loaded: Loaded) -> dict[str, Any]:
    """The status of the agent that `loaded` configures; `running` says whether one answered.  Raises Permanent."""
    serve = loaded.settings.serve
    if serve.port == 0:
        raise Permanent(f"{loaded.file}: serve.port is 0, so only the log says where the agent answers; set a port")
    connection = http.client.HTTPConnection(serve.host, serve.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        content = answer.read()
        if answer.status == http.client.OK:
            found: dict[str, Any] = json.loads(content)
            return found
        raise Permanent(f"{serve.host}:{serve.port} answers {answer.status}: is serve.port another program's?")
    except (OSError, http.client.HTTPException, ValueError):
        return {"running": False, **_from_disk(loaded)}
    finally:
        connection.close()


def ledger(loaded: Loaded) -> list[dict[str, Any]]:
    """Every sequence number, from the spool's index on the disk, whether an agent runs or not.  Raises AgentError."""
    folder = loaded.path(loaded.settings.state.folder) / "spool"
    if not folder.is_dir():
        raise Permanent(f"there is no spool in {folder}: no agent has run with {loaded.file}")
    return [
        {
            "epoch": epoch,
            "state": "delivered" if span.state is State.STORED else str(span.state),
            "first_seq": span.first,
            "last_seq": span.last,
            "batches": span.batches,
            **_why(span),
        }
        for epoch, spans in ledger_on_disk(folder).items()
        for span in spans
    ]


def _why(span: Span) -> dict[str, Any]:
    record = span.record
    if record is None:
        return {"reason": None, "lane": None, "first": None, "last": None, "exact": span.exact}
    times = {"first": _time(record.first_t_us), "last": _time(record.last_t_us)}
    return {"reason": record.reason, "lane": record.lane, **times, "exact": span.exact}


def _time(t_us: int | None) -> str | None:
    return None if t_us is None else (_EPOCH + timedelta(microseconds=t_us)).isoformat()


def render_ledger(lines: Sequence[Mapping[str, Any]]) -> str:
    """The ledger for a person."""
    shown = [f"{'numbers':>20}  {'state':10}{'reason':22}{'lane':9}times"]
    epoch = ""
    for line in lines:
        if line["epoch"] != epoch:
            epoch = line["epoch"]
            shown.append(f"epoch {epoch}")
        numbers = f"{line['first_seq']}-{line['last_seq']}"
        reason = (line["reason"] or "") + ("" if line["exact"] else " (about)")
        times = "" if line["first"] is None else f"{line['first']} to {line['last']}"
        shown.append(f"{numbers:>20}  {line['state']:10}{reason:22}{line['lane'] or '':9}{times}".rstrip())
    return "\n".join(shown)


def _link_use(link: Mapping[str, Any]) -> str:
    kind = {True: "metered", False: "not metered", None: "metered or not: unknown"}[link["metered"]]
    used = (
        f"{link['metered_bytes_today'] / 1e6:.1f} of {link['metered_daily_bytes'] / 1e6:.0f} MB of metered links today"
    )
    aside = f"; {link['set_aside']:,} batches unanswered and set aside" if link["set_aside"] else ""
    return f"lanes     {', '.join(link['lanes']) or 'none'} ({kind}; {used}){aside}"


def _from_disk(loaded: Loaded) -> dict[str, Any]:
    folder = loaded.path(loaded.settings.state.folder) / "spool"
    if not folder.is_dir():
        return {"spool": None, "note": f"there is no spool in {folder}"}
    try:
        return {"spool": spool_status(counts_on_disk(folder))}
    except Transient as error:
        return {"spool": None, "note": str(error)}


def render(status: Mapping[str, Any]) -> str:
    """The status for a person."""
    lines = []
    if status["running"]:
        lines.append(f"vehicle   {status['vehicle']}  ({status['version']}, up {status['uptime_s']:.0f} s)")
        link = status["link"]
        lines.append(
            f"link      {link['state']} to {link['broker']}" + (f": {link['problem']}" if link["problem"] else "")
        )
        lines.append(_link_use(link))
        for source in status["sources"]:
            note = f": {source['problem']}" if source["problem"] else ""
            lines.append(f"source    {source['name']} {source['state']}{note}")
        telemetry = status["telemetry"]
        frames = ", ".join(f"{bus} {count:,}" for bus, count in telemetry["frames"].items()) or "none"
        lines.append(f"frames    {frames}")
        for campaign in telemetry["campaigns"]:
            lines.append(f"campaign  {campaign['name']} @{campaign['revision']}")
        if telemetry["problem"]:
            lines.append(f"disk      {telemetry['problem']}")
        pushes = status["pushes"]
        lines.append(f"pushes    release {pushes['version']}{' (on trial)' if pushes['in_trial'] else ''}")
        for key, toggle in status["toggles"].items():
            lines.append(f"toggle    {key} = {toggle['value']!r} ({toggle['variant']})")
    else:
        lines.append("agent     does not answer" + (f": {status['note']}" if "note" in status else ""))
    if (spool := status["spool"]) is not None:
        lines.append(
            f"batches   {spool['next_seq'] - 1:,} made: {spool['acknowledged']:,} acknowledged, "
            f"{spool['waiting']:,} waiting ({spool['waiting_bytes']:,} bytes), "
            f"{spool['checkpoints']:,} checkpoints of open windows"
        )
        if spool.get("problem"):
            lines.append(f"spool     {spool['problem']}")
        for reason, lost in spool["lost"].items():
            what = ", ".join(f"{count:,} {name}" for name, count in lost.items() if count)
            lines.append(f"lost      {reason}: {what}")
    return "\n".join(lines)
