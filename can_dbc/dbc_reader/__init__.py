"""Reads DBC files.

An entry with one meaning is read, even if it must be repaired.  An entry with two meanings or none is left out.  Notes
name the entries that were repaired and those that were left out.
"""
