"""Set up structlog, with JSON lines for the journal or coloured text on a terminal.

The log goes to stderr, because the results of commands go to stdout.
"""

import logging
import sys
from typing import Final, Literal

import structlog

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class _FromLibraries(logging.Handler):
    """Passes on what a library logs or warns of, so that it becomes a log line of the same form as all others."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log `record` with the name of the library's logger."""
        text = record.getMessage()
        # paho repeats this at each attempt to connect.  `link_failed` says once, with a remedy, why the attempts fail.
        repeated = record.name == "mqtt" and text.startswith("failed to receive on socket")
        level = logging.DEBUG if repeated else record.levelno
        fields = {"exc_info": record.exc_info} if record.exc_info else {}
        structlog.get_logger().log(level, "library", logger=record.name, message=text, **fields)


def configure(level: str = "info", style: Literal["auto", "json", "pretty"] = "auto") -> None:
    """Log events of `level` and above in `style`; "auto" is pretty if stderr is a terminal, else JSON."""
    pretty = style == "pretty" or (style == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
            *([] if pretty else [structlog.processors.dict_tracebacks]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        # Loggers are made when modules are imported, before the settings are read.  A cached logger would keep the
        # style and level of that moment.
        cache_logger_on_first_use=False,
    )
    # Python itself would print such lines on stderr in a form of its own.
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _FromLibraries)]
    root.addHandler(_FromLibraries(max(LEVELS[level], logging.WARNING)))
