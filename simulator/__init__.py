"""Simulates a vehicle: its route, physics and controllers, and the frames on its buses.  It does not use the agent."""
