"""Use the machine: its files, systemd, memory and log.  This package imports no other one but `agent.errors`."""
