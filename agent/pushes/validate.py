"""Check whether the documents of a release can be used here, the last check before it may be applied.

This file runs in the verifier process, because rules are programs, and one that never ends must not take the agent
with it.  Invariant: a release that passes was parsed by the very code that will apply it, and every flag was evaluated
for this vehicle.
"""

from agent.formats.down.audience import Attributes
from agent.formats.down.campaign import parse_campaigns
from agent.formats.down.evaluation import check_toggles, vehicle_context
from agent.pushes.release import CAMPAIGNS, TOGGLES, Release


def validate(release: Release, vehicle: Attributes) -> None:
    """Check every document of `release`, and its campaigns together.

    Raises Permanent naming the target, and the flag or key at fault.
    """
    if release.toggles is not None:
        check_toggles(release.toggles, TOGGLES, (vehicle_context(vehicle),))
    parse_campaigns((f"{CAMPAIGNS}{name}.json", document) for name, document in release.campaigns)
