"""Plays a staged roll-out in a fleet of virtual vehicles, some of which fail on the new release."""
