"""CAN databases compiled to bit plans, and CAN frames decoded by them as columns.  Knows nothing of the agent."""
