"""Decodes frames once and collects their signals in the windows of campaigns."""
