"""Simulates a vehicle: its route, physics and controllers, and the frames on its buses.  It needs no agent."""
