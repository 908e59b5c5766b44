"""Simulates a fleet against a real broker and real receivers, to measure their capacity and to find lost samples."""
