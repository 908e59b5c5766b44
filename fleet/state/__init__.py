"""Manages the content of a fleet folder: keys, certificates, the registry of vehicles and the broker's access list."""
