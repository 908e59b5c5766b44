"""The commands of `fleet`, one file each: arguments, one call, and what is printed."""
