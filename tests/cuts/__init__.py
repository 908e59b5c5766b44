"""Power cuts of a whole machine, with clocks that are wrong or not set yet.

A machine is User Mode Linux.  The state of its agent lies on a disk image, and two virtual CAN buses carry frames with
a counter.  A cut kills the machine with all its processes, so what the kernel has not written to the disk image is
lost.  The same image then boots again.  After some cuts, a last boot delivers everything to a real broker and receiver.
Every frame must then be in the lake once, or in an interval that the ledger names for its bus and campaign.

`plan` draws the boots from a seed, `play` boots them, `boot` is the program that runs inside, and `verdict` compares.
"""
