"""Publishing: from documents to a signed repository, and from there to vehicles that ask."""
