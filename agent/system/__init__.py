"""Use the machine: its files, systemd, memory and log.  Of the project, this package imports `agent.errors` only."""
