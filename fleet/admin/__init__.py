"""Creates a fleet, and enrols its vehicles."""
