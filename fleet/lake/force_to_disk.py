"""Makes an append to a table in a local folder durable, which the Delta library does not do."""

import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.system.durable import fsync_directory


def force_to_disk(table_uri: str, version: int) -> None:
    """Make the data files and the log entry of the Delta version `version` durable.

    For a table in an object store, do nothing.  Raises: OSError if a file cannot be read or synced.
    """
    location = urlsplit(table_uri)
    # An object store has already made the data durable when it answers.
    if location.scheme not in {"", "file"}:
        return
    folder = Path(unquote(location.path))
    entry = folder / "_delta_log" / f"{version:020}.json"
    # A text of a vehicle may hold U+2028, at which str.splitlines would cut a line of the log in two.
    actions = [json.loads(line) for line in entry.read_bytes().split(b"\n") if line]
    # Paths in the log are percent-encoded (Delta protocol, section Add File).
    files = [folder / unquote(action["add"]["path"]) for action in actions if "add" in action]
    for file in (*files, entry):
        with file.open("rb") as written:
            os.fsync(written.fileno())
    for directory in {file.parent for file in (*files, entry)} | {folder}:
        fsync_directory(directory)
