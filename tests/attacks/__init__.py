"""Attacks on real programs: mosquitto, the receiver and the agent run as processes, and the attacker is one vehicle.

`make test` runs each attack for some seconds, and `make attacks` for a minute (ATTACK_SECONDS).  Each attack adds what
it did and what was measured to `build/attacks.json`.
"""
