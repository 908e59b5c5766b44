"""Condition-based campaigns: evaluation over arrays, triggers, and the rings of samples that a trigger sends."""
