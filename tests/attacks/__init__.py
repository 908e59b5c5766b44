"""Attacks on real programs: mosquitto, the receiver and the agent run as processes, and the attacker is one vehicle.

`make test` runs each attack for some seconds, and `make attacks` for a minute (ATTACK_SECONDS).  Tests elsewhere play
attacks as well: whatever is marked with `attack` is a row of `build/attacks.json` (see tests/attack_report.py).
"""
