"""Tests the stores on a simulated disk that loses power."""
