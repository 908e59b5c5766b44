"""The commands of `fleet`: one file for each, which declares its arguments, calls the library and prints the result."""
