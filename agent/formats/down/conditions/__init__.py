"""The language of conditions: from text to a checked tree.  config/campaigns/README.md describes the language."""
