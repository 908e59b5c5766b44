"""Real programs (mosquitto, receiver, agent) started for demonstration, simulation and tests."""
