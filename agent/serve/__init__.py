"""What the head unit's own apps may ask, on loopback."""
