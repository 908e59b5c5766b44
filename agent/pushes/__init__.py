"""Pushes: from a bundle that anybody may have sent to the release in force, and back again where it does harm."""
