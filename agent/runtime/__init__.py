"""Build, connect, run and stop the components of the agent."""
