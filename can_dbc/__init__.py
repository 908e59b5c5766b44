"""Compiles CAN databases into bit plans, and decodes blocks of CAN frames with them.  The package needs no agent."""
