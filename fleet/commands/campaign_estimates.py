"""Shows what campaigns would make vehicles send, and refuses a campaign that exceeds the budget of bytes."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import Permanent
from agent.formats.down.campaign import Campaign
from agent.system.arguments import add_log_timezone, bus_and_file, positive
from agent.system.command_line import printable
from fleet.commands.arguments import add_lake_arguments, lake_of
from fleet.commands.output import complain
from fleet.publishing.publish import Draft
from fleet.state.folder import FleetFolder

if TYPE_CHECKING:
    from fleet.publishing.campaign_costs import Cost

BUDGET_MB: Final = 5.0
"""The most megabytes that a campaign may make a vehicle send in an hour of driving: 150 MB a month at an hour a day.

A car with 604 signals at their full rates sends some 9 MB an hour.
"""
RINGS_MB: Final = 20.0
"""The default of telemetry.rings_mb in a vehicle: its memory for the rings of all condition-based campaigns."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how the bytes of campaigns are estimated."""
    parser.add_argument(
        "--dbc",
        type=_database,
        action="append",
        default=[],
        metavar="[BUS=]FILE",
        help="a database of the vehicles; names the signals of campaigns that no database has; may be repeated",
    )
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="a recorded drive from which the bytes of campaigns are estimated, with --dbc; without it, the estimate "
        "comes from what vehicles of the same model have sent to the lake",
    )
    add_log_timezone(parser)
    parser.add_argument(
        "--budget-mb",
        type=positive,
        default=BUDGET_MB,
        metavar="MB",
        help="refuse a campaign that would make a vehicle send more in an hour of driving (default: %(default)g)",
    )
    parser.add_argument(
        "--rings-mb",
        type=positive,
        default=RINGS_MB,
        metavar="MB",
        help="refuse a campaign whose rings take more memory than telemetry.rings_mb of the vehicles (default: "
        "%(default)g)",
    )
    parser.add_argument(
        "--yes-this-is-large", action="store_true", help="publish a campaign even if it exceeds --budget-mb"
    )
    add_lake_arguments(parser)


def costs_of(args: argparse.Namespace, made: Draft) -> "tuple[list[Cost], list[str]]":
    """Return the costs of the new campaigns, and print and return warnings about them.

    Raises: Permanent if a given log, database or lake cannot be used.
    """
    if args.log is not None and not args.dbc:
        raise Permanent("--log needs the databases that decode the log. Please also give --dbc.")
    # A suspended campaign collects nothing.
    new = [each for each in made.new if isinstance(each.value, Campaign) and not each.value.suspended]
    if not new:
        return [], []
    from fleet.publishing.campaign_costs import Cost, costs_by_lake, costs_by_vehicle_code, least_ring_bytes

    costs: list[Cost] = []
    problems: list[str] = []
    if args.dbc:
        costs = costs_by_vehicle_code([Path(each.source) for each in new], args.dbc, args.log, args.log_timezone)
    # The folder of a new fleet has no tables yet, which is not a mistake.
    if args.log is None and (args.lake is not None or (FleetFolder(args.fleet).lake / "batches").exists()):
        for_whom = [(each.value, frozenset(made.population.vehicles(*made.after[each.path]))) for each in new]
        try:
            found = costs_by_lake(for_whom, made.population, lake_of(args), datetime.now(UTC).date())
        except Permanent as error:
            if args.lake is not None:
                raise
            problems.append(f"The bytes of campaigns could not be estimated from the lake: {error}")
        else:
            costs += found
    judged = {cost.campaign for cost in costs}
    unjudged = [each.value for each in new if each.value.name not in judged and each.value.condition is not None]
    costs += [Cost(each.name, "", "no --log", None, {}, least_ring_bytes(each)) for each in unjudged]
    # Databases have every signal, and the lake only those that a campaign has collected.
    judges = [cost for cost in costs if not (args.dbc and cost.model)]
    problems += [warning for cost in judges for warning in cost.warnings()]
    if not any(cost.bytes_per_hour is not None for cost in costs):
        problems.append("There is no estimate of the campaigns' bytes; give a recorded drive with --log and --dbc.")
    for problem in problems:
        complain(problem)
    return costs, problems


def show(args: argparse.Namespace, costs: "list[Cost]") -> None:
    """Print the costs in words, unless the result is printed as JSON."""
    if not args.json:
        for cost in costs:
            if cost.bytes_per_hour is not None or cost.ring_bytes:
                print(printable(cost.line()))


def refuse_large(args: argparse.Namespace, costs: "list[Cost]") -> None:
    """Check that no campaign exceeds the budget of bytes or of memory.  Raises: Permanent naming each that does."""
    hungry = [cost for cost in costs if cost.ring_bytes > args.rings_mb * 1e6]
    if hungry:
        raise Permanent(
            "; ".join(cost.line() for cost in hungry) + f"; a vehicle has {args.rings_mb:g} MB for the rings of all "
            "campaigns, and would refuse it. Nothing was published. Set a smaller maxSampleCount, collect fewer "
            "signals, or give --rings-mb if telemetry.rings_mb is larger in these vehicles."
        )
    large = [cost for cost in costs if (cost.bytes_per_hour or 0.0) > args.budget_mb * 1e6]
    if large and not args.yes_this_is_large:
        raise Permanent(
            "; ".join(cost.line() for cost in large) + f"; the budget is {args.budget_mb:g} MB an hour. Nothing was "
            "published. Collect fewer signals or set minimumSamplingIntervalMs, raise --budget-mb, or give "
            "--yes-this-is-large."
        )


def _database(text: str) -> str:
    """Check the form of `[BUS=]FILE`, and return it unchanged for the program that reads the databases."""
    bus_and_file(text)
    return text
