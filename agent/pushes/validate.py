"""Whether the documents of a release can be used here: the last check before it may be applied.

Runs in the verifier process: rules are programs, and one that never ends must not take the agent with it.  Invariant:
what passes has been parsed by the very code that will apply it, and every flag was evaluated for this vehicle.
"""

from agent.formats.down.audience import Attributes
from agent.formats.down.campaign import parse_campaign
from agent.formats.down.evaluation import check_toggles, vehicle_context
from agent.pushes.release import CAMPAIGNS, TOGGLES, Release


def validate(release: Release, vehicle: Attributes) -> None:
    """Raises Permanent naming the target, and the flag or key at fault."""
    if release.toggles is not None:
        check_toggles(release.toggles, TOGGLES, (vehicle_context(vehicle),))
    for name, document in release.campaigns:
        parse_campaign(document, f"{CAMPAIGNS}{name}.json")
