"""Starts the real programs (mosquitto, receiver, agent) for the demonstration, the simulation and the tests."""
