"""The stores on a disk that loses its power."""
