"""Defines a message between the broker and the receiver.  Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """Holds an MQTT message that has arrived or that is to be sent."""

    topic: str
    payload: bytes

    @property
    def vehicle(self) -> str:
        """Return the vehicle that the topic names, or an empty string if the topic has no place for a vehicle.

        The broker's access list ties the topic to the vehicle's certificate, so this vehicle bears the cost of the
        message, whatever the payload says.
        """
        match self.topic.split("/"):
            case [_, _, "up", _, vehicle, _] | [_, _, "sync" | "fetch", vehicle]:
                return vehicle
        return ""
