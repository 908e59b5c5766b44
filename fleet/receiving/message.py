"""A message between the broker and the receiver.  Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """Hold an MQTT message as it came, or as it is to be sent."""

    topic: str
    payload: bytes
