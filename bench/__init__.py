"""Measures what the agent costs against the tools in use today, in one run and on the same frames (`make bench`)."""
