"""Defines a message between the broker and the receiver.  Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """Holds an MQTT message that has arrived or that is to be sent."""

    topic: str
    payload: bytes
