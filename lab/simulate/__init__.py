"""A fleet of virtual vehicles against real broker and receivers: how much they carry, and that nothing is lost."""
