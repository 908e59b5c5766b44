"""The running agent: build its components, connect them, run them and end them."""
