"""The machine below: files, processes, systemd, memory, log.  Knows no other package but `agent.errors`."""
