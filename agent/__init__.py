"""The on-vehicle agent sends CAN data to the fleet, and applies the signed toggles and campaigns of the fleet."""

__version__ = "0.1.0"
