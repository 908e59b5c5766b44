"""The commands of `headunit-agent`, one file for each command."""
