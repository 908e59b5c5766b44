"""Use the machine: its files, systemd, memory and log.  From this project, the package imports only `agent.errors`."""
