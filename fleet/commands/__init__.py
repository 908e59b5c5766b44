"""The commands of `fleet`.  Each file declares a command's arguments, calls the library and prints the result."""
