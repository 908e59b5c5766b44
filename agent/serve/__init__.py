"""Serve toggles and status to the apps of the head unit, on loopback only."""
