"""The demonstration: runs the whole product as real processes through a drive with faults, and checks every sample."""
