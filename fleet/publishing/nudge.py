"""Notify connected vehicles that a new release is published."""

from agent.formats import topics
from agent.link.mqtt import Endpoint, connect
from fleet.state.folder import RENEW_RECEIVER, FleetFolder


async def nudge(folder: FleetFolder, host: str, port: int) -> None:
    """Publish an empty message on a topic to which all vehicles subscribe.

    Each connected vehicle then asks for the new release.

    Raises: Transient or Permanent, as `agent.link.mqtt` does for a failed connection.
    """
    endpoint = Endpoint(
        host=host,
        port=port,
        ca_file=folder.broker.authorities,
        cert_file=folder.receiver_certificate,
        key_file=folder.receiver_key,
        client_id="publisher",
        renew=RENEW_RECEIVER,
    )
    async with connect(endpoint) as connection:
        await connection.publish(topics.NUDGE, b"")
