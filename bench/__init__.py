"""`make bench`: what the agent costs, measured in one run against what is in use today, on the same frames."""
