"""Publishes documents: signs them, keeps them in a repository, and sends them to vehicles that ask for updates."""
