"""Defines a kind of documents for tests, and so shows what a new row of the table of kinds needs."""

from agent.errors import Permanent
from agent.formats.down.audience import Attributes
from agent.formats.down.documents import CAMPAIGN, KINDS, Documents, Kind


def parse(content: bytes, source: str) -> str:
    try:
        return content.decode("ascii")
    except UnicodeDecodeError as error:
        raise Permanent(f"{source}: a greeting is ASCII") from error


def check(release: Documents, vehicle: Attributes | None) -> None:
    """Require a campaign beside a greeting, and the vehicle's brand in a greeting that ends in '!'."""
    for greeting in release["greeting"]:
        if not release[CAMPAIGN.name]:
            raise Permanent(f"{greeting.source}: a greeting needs a campaign")
        if vehicle is not None and greeting.value.endswith("!") and vehicle.brand not in greeting.value:
            raise Permanent(f"{greeting.source}: it is not for {vehicle.brand}")


GREETING = Kind("greeting", "greetings/*.txt", 40, "greeting (ASCII)", parse, lambda text: text.split()[0], check)
WITH_GREETINGS = (*KINDS, GREETING)
