"""From frames to the windows of campaigns."""
