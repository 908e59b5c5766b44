"""A cantools database with notes on what its file says that cannot be carried out."""

from collections.abc import Sequence

from cantools.database.can import Bus, Database, Message


class NotedDatabase(Database):
    """The messages of one file, with notes for its maintainer.

    Each note names the message and the signal that it is about, and the remedy.
    """

    def __init__(self, messages: Sequence[Message], buses: Sequence[Bus], notes: Sequence[str]) -> None:
        super().__init__(list(messages), buses=list(buses), strict=False)
        self.notes = tuple(notes)
