"""Decides what to send next and over which link, sends it, and handles the answers."""
