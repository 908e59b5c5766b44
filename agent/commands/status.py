"""`headunit-agent status`: asks the running agent for its status, or reads the spool if no agent answers.

The command never writes to the spool.  It therefore works after a crash, and does not hinder an agent that is starting.
`agent.runtime.live_status` makes the status of a running agent.
"""

import argparse
import http.client
import json
import shutil
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agent.commands.config_option import add_config
from agent.commands.status_text import render, render_ledger
from agent.errors import Permanent, Transient
from agent.formats.up.ledger import Span, State
from agent.runtime.start_note import read_start
from agent.serve.addresses import SOCKET
from agent.serve.local_client import LocalConnection
from agent.settings import identity, settings
from agent.settings.settings import Loaded
from agent.system.arguments import add_json
from agent.telemetry.spool.account import counts_on_disk, ledger_on_disk, spool_status
from agent.telemetry.spool.shortage import below_reserve

TIMEOUT_S: Final = 5.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser)
    parser.add_argument(
        "--ledger",
        action="store_true",
        help="show whether each sequence number is delivered, waiting or lost, and why (like `fleet query ledger`)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the status, and return 0 if an agent answered, else 1.

    With `--ledger`, print the ledger instead, and return 0.
    """
    loaded = settings.load(options.config)
    if options.ledger:
        lines = ledger(loaded)
        print(json.dumps(lines, indent=2) if options.json else render_ledger(lines))
        return 0
    status = fetch(loaded)
    print(json.dumps(status, indent=2) if options.json else render(status))
    return 0 if status["running"] else 1


def fetch(loaded: Loaded) -> dict[str, Any]:
    """Return the status of the agent that `loaded` configures.

    `vehicle` is the pseudonym from the identity folder, or None if this user may not read the folder.  The agent itself
    does not tell it, because every app can ask the agent.  If no agent answers, `running` is False, `spool` comes from
    the disk, and `starting` says whether an agent is starting, for how long, and what it waits for.

    Raises: Permanent if the agent answers with an error.
    """
    # Another program may hold the port, but only the agent can open a socket in its runtime folder.
    connection = LocalConnection(loaded.path(loaded.settings.state.runtime_folder) / SOCKET, TIMEOUT_S)
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        if answer.status != http.client.OK:
            raise Permanent(f"The agent answers with HTTP status {answer.status}: {found}; see its log.")
        return {"vehicle": _vehicle(loaded), **found}
    # No agent runs, or the agent is starting or hangs.  The disk still has the account of batches.
    except (OSError, http.client.HTTPException, ValueError):
        return {"vehicle": _vehicle(loaded), "running": False, "starting": _start(loaded), **_from_disk(loaded)}
    finally:
        connection.close()


def _start(loaded: Loaded) -> dict[str, Any] | None:
    """Return how long an agent has been starting, and what it waits for, or None if no agent is starting."""
    start = read_start(loaded.path(loaded.settings.state.runtime_folder))
    if start is None:
        return None
    return {"pid": start.pid, "for_s": round(max(0.0, time.time() - start.since_s), 1), "problem": start.problem}


def _vehicle(loaded: Loaded) -> str | None:
    try:
        return identity.pseudonym(loaded.path(loaded.settings.identity.folder))
    except Permanent:
        return None


def ledger(loaded: Loaded) -> list[dict[str, Any]]:
    """Return the state of each range of sequence numbers, as read from the index of the spool.

    An agent may be running, but need not be.

    Raises: Permanent if there is no spool; Transient if its index cannot be read.
    """
    folder = loaded.path(loaded.settings.state.folder) / "spool"
    if not folder.is_dir():
        raise Permanent(
            f"{loaded.file}: there is no spool in {folder}, because no agent has run with this file; check state.folder"
        )
    return [
        {
            "epoch": epoch,
            # The lake calls these numbers stored; the vehicle only knows that they were acknowledged.
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
    # This sum of integers is exact to the microsecond, unlike `datetime.fromtimestamp` with a float of seconds.
    return None if t_us is None else (_EPOCH + timedelta(microseconds=t_us)).isoformat()


def _from_disk(loaded: Loaded) -> dict[str, Any]:
    folder = loaded.path(loaded.settings.state.folder) / "spool"
    if not folder.is_dir():
        return {"spool": None, "note": f"there is no spool in {folder}"}
    try:
        found = spool_status(counts_on_disk(folder))
        free_bytes, reserve_bytes = shutil.disk_usage(folder).free, loaded.settings.spool.reserve_bytes
        short = below_reserve(folder, free_bytes, reserve_bytes) if free_bytes < reserve_bytes else None
        return {"spool": {**found, "shortage": short}}
    except Transient as error:
        return {"spool": None, "note": str(error)}
