"""The virtual vehicle: route, physics, controllers, and the frames that they put on the buses.  It knows no agent."""
