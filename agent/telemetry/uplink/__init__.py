"""What is sent next, over which link, and what becomes of the answers."""
