import json
import logging
import subprocess
import sys

import pytest
import structlog

from agent.system import log


def test_json_lines_go_to_stderr_and_results_stay_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    structlog.get_logger().info("agent_ready", vehicle="one")
    structlog.get_logger().debug("not_shown")
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = map(json.loads, shown.err.splitlines())
    assert (line["event"], line["vehicle"], line["level"]) == ("agent_ready", "one", "info")
    assert line["timestamp"].endswith("Z")


def test_an_exception_is_one_line_in_the_journal(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    try:
        raise ValueError("a bug")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "a bug" in line


def test_what_a_library_logs_or_warns_of_is_a_line_like_all_others(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    log.configure("info", "json")  # a reload configures the log again
    logging.getLogger("some.library").warning("the adapter says %s", "no")
    logging.getLogger("some.library").info("not worth a line")
    try:
        raise OSError("gone")
    except OSError:
        logging.getLogger("asyncio").exception("a task failed")
    first, third = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["logger"], first["message"], first["level"]) == (
        "library",
        "some.library",
        "the adapter says no",
        "warning",
    )
    assert (third["level"], third["exception"][0]["exc_value"]) == ("error", "gone")


def test_a_warning_of_python_is_a_line_like_all_others() -> None:
    # pytest catches warnings of its own process.
    program = "from agent.system import log; import warnings; log.configure(); warnings.warn('this will go away')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "this will go away" in json.loads(done.stderr)["message"]


def test_auto_is_json_where_there_is_no_terminal_and_pretty_where_it_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "auto")
    structlog.get_logger().info("automatic")
    log.configure("warning", "pretty")
    structlog.get_logger().info("below_the_level")
    structlog.get_logger().warning("for_people")
    automatic, pretty = capsys.readouterr().err.splitlines()
    assert json.loads(automatic)["event"] == "automatic"
    assert "for_people" in pretty
    assert not pretty.startswith("{")


def test_a_line_that_paho_repeats_at_each_attempt_is_for_debugging_only(capsys: pytest.CaptureFixture[str]) -> None:
    for level, count in (("info", 1), ("debug", 2)):
        log.configure(level, "json")
        logging.getLogger("mqtt").error("failed to receive on socket: %s", "[SSL: TLSV1_ALERT_UNKNOWN_CA]")
        logging.getLogger("mqtt").error("another message")
        assert len(capsys.readouterr().err.splitlines()) == count
    log.configure("info", "json")
