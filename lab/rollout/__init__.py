"""Plays a staged roll-out in a fleet of virtual vehicles, of which some fail on the new release."""
