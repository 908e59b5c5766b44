"""Reads DBC files.  Entries with one meaning are read, entries with two or none are left out, and notes name both."""
