"""Write the status and the ledger of an agent as text for a person.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.system.words import counted

_NOUNS: Final = {"batches": "batch", "samples": "sample", "frames": "frame"}


def render(status: Mapping[str, Any]) -> str:
    """Return the status (see `agent.commands.status.fetch`) as lines of text."""
    lines = [*_agent_lines(status), *_work_lines(status)] if status["running"] else [_silent_line(status)]
    # The spool is missing if no agent has run yet, or if its index cannot be read.
    if status["spool"] is not None:
        lines += _spool_lines(status["spool"])
    return "\n".join(lines)


def _silent_line(status: Mapping[str, Any]) -> str:
    start = status.get("starting")
    if start is not None:
        wait = "" if start["problem"] is None else f", and waits: {start['problem']}"
        return f"agent     has been starting for {start['for_s']:.0f} s (process {start['pid']}){wait}"
    note = f": {status['note']}" if "note" in status else ""
    return (
        f"agent     is not running, or is still starting{note}; see its log "
        "(of the service: journalctl -u headunit-agent -n 20)"
    )


def _agent_lines(status: Mapping[str, Any]) -> list[str]:
    link = status["link"]
    vehicle = status["vehicle"] or "unknown: the identity folder cannot be read"
    no_source = ["source    none: there are no [[sources]] in agent.toml, so the agent collects nothing"]
    return [
        f"vehicle   {vehicle}  ({status['version']}, up {status['uptime_s']:.0f} s)",
        f"link      {link['state']} to {link['broker']}{_problem(link)}",
        _link_use(link),
        *([f"source    {source['name']} {source_text(source)}" for source in status["sources"]] or no_source),
    ]


def _work_lines(status: Mapping[str, Any]) -> list[str]:
    telemetry, pushes = status["telemetry"], status["pushes"]
    frames = ", ".join(f"{bus} {count:,}" for bus, count in telemetry["frames"].items()) or "none"
    lines = [f"frames    {frames}"]
    lines += [f"campaign  {campaign['name']} @{campaign['revision']}" for campaign in telemetry["campaigns"]]
    if telemetry["problem"]:
        lines.append(f"disk      {telemetry['problem']}")
    waits = ", ".join(pushes.get("trial_waits_for", ()))
    on_trial = f" (on trial{f', waits for {waits}' if waits else ''})" if pushes["in_trial"] else ""
    lines.append(f"pushes    release {pushes['version']}{on_trial}")
    lines += [f"serves    {each['address']}{_problem(each)}" for each in status["addresses"]]
    lines += [f"toggle    {key} = {one['value']!r} ({one['variant']})" for key, one in status["toggles"].items()]
    return lines


def _spool_lines(spool: Mapping[str, Any]) -> list[str]:
    lines = [
        f"batches   {spool['next_seq'] - 1:,} made: {spool['acknowledged']:,} acknowledged, "
        f"{spool['waiting']:,} waiting ({spool['waiting_bytes']:,} bytes), "
        f"{counted(spool['checkpoints'], 'checkpoint')} of open windows"
    ]
    if spool.get("in_memory"):
        size = f"{spool['in_memory_bytes']:,} bytes"
        lines.append(f"memory    {counted(spool['in_memory'], 'batch')} ({size}) not on the disk")
    if spool.get("shortage"):
        lines.append(f"disk      {spool['shortage']}")
    if spool.get("problem"):
        lines.append(f"spool     {spool['problem']}")
    for reason, lost in spool["lost"].items():
        what = ", ".join(counted(lost[name], noun) for name, noun in _NOUNS.items() if lost.get(name))
        lines.append(f"lost      {reason}: {what}")
    return lines


def source_text(source: Mapping[str, Any]) -> str:
    """Return the state of one source, with the reason if it waits or has failed."""
    return "open, no frame yet" if source["state"] == "open" else f"{source['state']}{_problem(source)}"


def _problem(of: Mapping[str, Any]) -> str:
    return f": {of['problem']}" if of["problem"] else ""


def _link_use(link: Mapping[str, Any]) -> str:
    kind = {True: "metered", False: "not metered", None: "unknown whether metered"}[link["metered"]]
    used = (
        f"used while metered today: {link['metered_bytes_today'] / 1e6:.1f} of "
        f"{link['metered_daily_bytes'] / 1e6:.0f} MB"
    )
    aside = f"; {link['set_aside']:,} batches unanswered and set aside" if link["set_aside"] else ""
    return f"lanes     {', '.join(link['lanes']) or 'none'} ({kind}; {used}){aside}"


def render_ledger(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the lines of the ledger as a table, one section for each epoch."""
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
