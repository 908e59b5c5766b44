"""Compiles CAN databases into bit plans and decodes blocks of CAN frames.  It does not depend on the agent."""
