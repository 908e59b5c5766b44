"""From documents to signed releases, and how vehicles get them."""
