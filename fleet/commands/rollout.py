"""`fleet rollout`: bring documents to the fleet in stages, and take them back if too many vehicles fail."""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.errors import AgentError
from agent.formats.down.documents import KINDS
from agent.system.arguments import add_command, positive
from agent.system.command_line import printable
from agent.system.times import utc_text_of
from fleet.commands.arguments import add_fleet_argument, add_lake_arguments, address, lake_of
from fleet.commands.output import complain, report, table
from fleet.publishing.nudge import nudge
from fleet.state.folder import FleetFolder

if TYPE_CHECKING:
    from fleet.rollout.plan import Rollout
    from fleet.rollout.rollouts import Rollouts

SUMMARY: Final = "bring documents to the fleet in stages, and take them back if vehicles fail"
_START: Final = (
    "fleet rollout start --campaign drive.json --stages 1,10,50,100 --hold 24h --stop-if 'failures>0.5%' "
    "--broker localhost:8884"
)
EXAMPLE: Final = f"{_START}\n  fleet rollout run"
DESCRIPTION: Final = """\
Publish documents for a growing share of the vehicles. Receipts decide: a stage in which too many vehicles refuse the
release, or take it back, stops the roll-out, and the earlier documents are published again. `fleet rollout run` goes
on by itself. It may be killed and started again at any time. `fleet rollout step` does one step by hand."""

_ACTIONS: Final = {
    "start": ("check documents, and publish them for the first stage", _START),
    "status": ("show the stages and what their vehicles have reported", "fleet rollout status --json"),
    "run": ("carry out the roll-out until it ends", "fleet rollout run --every 60"),
    "step": ("look at the receipts once, and do what is due", "fleet rollout step --now"),
    "pause": ("begin no further stage; too many failures still stop the roll-out", "fleet rollout pause"),
    "resume": ("let a paused roll-out go on", "fleet rollout resume"),
    "back": ("publish the earlier documents again, for the vehicles that have the new ones", "fleet rollout back"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fleet rollout`: a subcommand for each action."""
    add_lake_arguments(parser)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    for name, (summary, example) in _ACTIONS.items():
        action = add_command(
            actions, name, summary=summary, description=f"{summary[0].upper()}{summary[1:]}.", example=example
        )
        # These options may stand before or after the action.  SUPPRESS keeps a value that was given before it.
        add_fleet_argument(action, default=argparse.SUPPRESS)
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON")
        add_lake_arguments(action, default=argparse.SUPPRESS)
        if name == "start":
            _add_start(action)
        if name != "start":
            action.set_defaults(unknown_hint="; the documents and the broker are given to `fleet rollout start`")
        if name == "run":
            action.add_argument(
                "--every",
                type=positive,
                default=60.0,
                metavar="S",
                help="seconds between two looks at the receipts (default: %(default)g)",
            )
        if name == "step":
            action.add_argument(
                "--now",
                action="store_true",
                help="end the stage now, without waiting for --hold and --need; failures above the limit still stop "
                "the roll-out",
            )


def _add_start(parser: argparse.ArgumentParser) -> None:
    for kind in KINDS:
        parser.add_argument(
            f"--{kind.name}", type=Path, action="append", metavar="FILE", help=f"{kind.help}; may be repeated"
        )
    parser.add_argument(
        "--audience",
        default="",
        metavar="KEY=VALUE,...",
        help="the vehicles of the roll-out, as for `fleet publish` (default: all); the stages are shares of them",
    )
    parser.add_argument(
        "--stages",
        default="1,10,50,100",
        metavar="PERCENT,...",
        help="shares of the vehicles, rising to 100 (default: %(default)s)",
    )
    parser.add_argument(
        "--hold",
        default="24h",
        metavar="TIME",
        help="how long each stage lasts at least, even one that adds no vehicle (default: %(default)s)",
    )
    parser.add_argument(
        "--stop-if",
        default="failures>0.5%",
        metavar="LIMIT",
        help="stop if a larger share of the reporting vehicles fails (default: %(default)s)".replace("0.5%", "0.5%%"),
    )
    parser.add_argument(
        "--need",
        default="50%",
        metavar="PERCENT",
        help="share of a stage's vehicles that must have reported before the next stage (default: 50%%)",
    )
    parser.add_argument(
        "--broker",
        type=address,
        metavar="HOST:PORT",
        help="notify connected vehicles of each stage through this broker, at its PORT for the fleet's programs",
    )


def run(args: argparse.Namespace) -> int:
    """Do the action that `args` names, print the roll-out, and return the exit status.

    `run` and `step` return 1 if the roll-out was stopped or taken back.
    """
    from fleet.rollout.rollouts import Rollouts

    fleet = FleetFolder(args.fleet).require()
    rollouts = Rollouts(fleet, lake_of(args), time.time)
    if args.action == "run":
        return _run(args, fleet, rollouts)
    if args.action == "status":
        return _status(args, rollouts)
    before = None if args.action == "start" else rollouts.latest()
    judgement = None
    if args.action == "step":
        rollout, judgement = rollouts.step(hurry=args.now)
    else:
        actions: dict[str, Callable[[], Rollout]] = {
            "start": lambda: rollouts.start(_request(args)),
            "pause": rollouts.pause,
            "resume": rollouts.resume,
            "back": rollouts.back,
        }
        rollout = actions[args.action]()
    _notify(fleet, before, rollout)
    if args.action == "start" and (empty := rollouts.empty_stages(rollout)):
        shares = ", ".join(f"{percent:g} %" for percent in empty)
        complain(
            f"These stages add no enrolled vehicle: {shares}. Each is held like any other, but tries nothing. `fleet "
            "rollout step --now` ends it; larger first shares would try the documents on some vehicles."
        )
    decision = None if judgement is None else judgement.why
    text = _line(rollout) if decision in (None, rollout.why) else f"{_line(rollout)}\n{printable(decision)}"
    report(args, {**_values(rollout), "decision": decision}, text)
    return 1 if args.action == "step" and _failed(rollout) else 0


def _run(args: argparse.Namespace, fleet: FleetFolder, rollouts: "Rollouts") -> int:
    """Step until the roll-out ends, and print it whenever it changes."""
    rollout = rollouts.latest()
    shown, complained = "", ""
    while True:
        text = json.dumps(_values(rollout)) if args.json else _line(rollout)
        if _line(rollout) != shown:
            print(text, flush=True)
        shown = _line(rollout)
        if rollout.published and not rollout.phase.active:
            return 1 if _failed(rollout) else 0
        before = rollout
        try:
            rollout, _ = rollouts.step()
            _notify(fleet, before, rollout)
            complained = ""
        except AgentError as error:
            # Another publisher is at work, or the disk or the lake refuses.  The command may run unattended, so the
            # next look tries again.
            if str(error) != complained:
                complain(error)
            complained = str(error)
        if rollout.phase.active or not rollout.published:
            time.sleep(args.every)


def _status(args: argparse.Namespace, rollouts: "Rollouts") -> int:
    rollout, counted = rollouts.show()
    values = _values(rollout)
    rows = []
    for stage, found, tally in zip(rollout.stages, values["stages"], counted.stages, strict=True):
        found |= {"vehicles": tally.vehicles, "confirmed": tally.confirmed, "failed": tally.failed}
        found["reasons"] = dict(tally.reasons)
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(tally.reasons.items()))
        began = utc_text_of(int(stage.began_s * 1e6)) if stage.began_s else None
        rows.append(
            [f"{stage.percent:g} %", stage.version, began, tally.vehicles, tally.confirmed, tally.failed, reasons]
        )
    columns = ("stage", "release", "published", "vehicles", "confirmed", "failed", "reasons")
    ahead = [f"{percent:g} %" for percent in rollout.plan.stages if percent > rollout.stages[-1].percent]
    lines = [_line(rollout), f"documents: {', '.join(rollout.documents)}", "", table(columns, rows)]
    if ahead and rollout.phase.active:
        lines.append(f"to come: {', '.join(ahead)}")
    report(args, values, "\n".join(lines))
    return 0


def _request(args: argparse.Namespace) -> Any:
    from agent.errors import Permanent
    from fleet.rollout.plan import Plan, parse_hold, parse_limit, parse_need, parse_stages
    from fleet.rollout.rollouts import Request

    files = [(kind.name, file) for kind in KINDS for file in getattr(args, kind.name) or ()]
    if not files:
        options = " or ".join(f"--{kind.name}" for kind in KINDS)
        raise Permanent(f"A roll-out needs documents. Please give {options}.")
    plan = Plan(parse_stages(args.stages), parse_hold(args.hold), parse_limit(args.stop_if), parse_need(args.need))
    broker = "" if args.broker is None else f"{args.broker[0]}:{args.broker[1]}"
    return Request(files, args.audience, plan, broker)


def _notify(fleet: FleetFolder, before: "Rollout | None", rollout: "Rollout") -> None:
    """Notify connected vehicles if something was published.  A failure is only printed: vehicles ask on connecting."""
    unchanged = before is not None and (before.percent, before.published) == (rollout.percent, rollout.published)
    if not rollout.broker or unchanged:
        return
    host, _, port = rollout.broker.rpartition(":")
    try:
        asyncio.run(nudge(fleet, host, int(port)))
    except AgentError as error:
        complain(f"The stage is published, but the vehicles could not be notified ({error}). They fetch it later.")


def _failed(rollout: "Rollout") -> bool:
    return not rollout.phase.active and rollout.percent == 0


def _line(rollout: "Rollout") -> str:
    """Return one line about the roll-out, for people."""
    stage = rollout.stages[-1]
    where = f"stage {stage.percent:g} %, release {stage.version}"
    published = "" if rollout.published else ", not published yet"
    text = f"The roll-out {rollout.id} is {rollout.phase} ({where}{published})."
    # The reasons of failures come from vehicles, and a terminal must obey none of their control characters.
    return printable(f"{text} {rollout.why}" if rollout.why else text)


def _values(rollout: "Rollout") -> dict[str, Any]:
    import msgspec

    values: dict[str, Any] = msgspec.to_builtins(rollout)
    # These targets serve only to publish the earlier contents again, so people need not see them.
    del values["earlier"]
    return {**values, "percent": rollout.percent}
