"""The world behind the virtual vehicle: route, physics, and what its controllers put on the buses.  All of it pure."""
