"""The note of a starting agent is believed only while its process runs."""

import os
from pathlib import Path

from agent.commands.status_text import render
from agent.runtime.start_note import FILE, Start, StartNote, read_start


def test_the_note_of_a_running_process_says_what_it_waits_for(tmp_path: Path) -> None:
    note = StartNote(tmp_path / "run")
    assert read_start(tmp_path / "run") is None
    note.write()
    found = read_start(tmp_path / "run")
    assert isinstance(found, Start)
    assert (found.pid, found.problem) == (os.getpid(), None)
    note.write("the disk is full; free some space" * 9)
    note.write("the disk is full")
    again = read_start(tmp_path / "run")
    assert again is not None
    assert (again.since_s, again.problem) == (found.since_s, "the disk is full")
    assert (tmp_path / "run" / FILE).stat().st_mode & 0o777 == 0o644
    note.remove()
    assert (read_start(tmp_path / "run"), list((tmp_path / "run").iterdir())) == (None, [])


def test_the_note_that_a_killed_process_left_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"pid": 1, "since_s": 5.0, "problem": null}')
    assert read_start(tmp_path) is None
    note = StartNote(tmp_path)
    note.write()
    assert read_start(tmp_path) is not None
    note.remove()


def test_a_folder_that_cannot_be_written_keeps_no_agent_from_starting(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    note = StartNote(tmp_path / "run")
    note.write("problem")
    note.remove()


def test_the_text_tells_a_starting_agent_from_a_dead_one() -> None:
    start = {"pid": 7, "for_s": 12.4, "problem": None}
    assert render({"running": False, "starting": start, "spool": None}) == (
        "agent     has been starting for 12 s (process 7)"
    )
    waits = render({"running": False, "starting": {**start, "problem": "The disk is full."}, "spool": None})
    assert waits == "agent     has been starting for 12 s (process 7), and waits: The disk is full."
    dead = render({"running": False, "starting": None, "spool": None})
    assert (
        dead == "agent     is not running, or is still starting; see its log "
        "(of the service: journalctl -u headunit-agent -n 20)"
    )
