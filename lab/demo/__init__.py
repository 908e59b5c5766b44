"""The demonstration: the whole product, as real processes, through a drive with faults, checked sample by sample."""
