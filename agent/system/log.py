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
