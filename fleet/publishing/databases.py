"""Tries whether vehicles can compile new databases, with the vehicles' own code and limits."""

import asyncio
from collections.abc import Iterable

from agent.formats.down.databases import PushedBus, PushedDatabase
from agent.formats.down.documents import DATABASE, SETTINGS, Document
from agent.settings.compiler import compile_apart
from can_dbc.cache import from_bytes
from can_dbc.plan import Match


def try_databases(new: Iterable[Document], published: Iterable[Document]) -> list[str]:
    """Compile each new database by itself, and each published one for which new settings name an encoding.

    Return the notes on them: what vehicles repair or leave out, as `headunit-agent check` says it.

    Raises: Permanent naming the database and the fault.
    """
    new, published = list(new), list(published)
    named = _encodings(new)
    encodings = {**_encodings(published), **named}
    again = [document for document in published if document.path in named]
    notes: list[str] = []
    for document in (*new, *again):
        name = DATABASE.name_in(document.path)
        if name is not None:
            database = PushedDatabase(document.path, document.content, encodings.get(document.path))
            plan = asyncio.run(compile_apart(PushedBus(name.partition("/")[0], (database,), None), Match.EXACT))
            read = from_bytes(plan, Match.EXACT)
            notes += [] if read is None else read.notes
    return notes


def _encodings(documents: Iterable[Document]) -> dict[str, str]:
    """Return the encodings that the settings among `documents` name, by the path of the database."""
    return {
        f"dbc/{bus}/{database.file}": database.encoding
        for document in documents
        if SETTINGS.name_in(document.path) is not None
        for bus, table in document.value.buses.items()
        for database in table.databases
        if database.encoding is not None
    }
