"""What is configured on board: settings, identity, databases."""
