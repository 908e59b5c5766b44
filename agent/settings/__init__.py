"""Read the configuration of the vehicle: settings, identity and databases."""
