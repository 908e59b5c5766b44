"""Creating a fleet, enrolling its vehicles."""
