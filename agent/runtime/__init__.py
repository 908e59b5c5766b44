"""The running agent: how its parts are built, connected, run and ended.  Only this package knows all others."""
