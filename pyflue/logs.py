"""The program's own log: what operators read on stderr. (`ctx.log` is something else: events of a run.)

`logger(name)` costs nothing until the first line is written; structlog is imported then. Lines have a constant event
name and fields. In `dev` they are coloured text, in `serve` one JSON object per line.
"""

from __future__ import annotations

import sys
from typing import Any


class Logger:
    """A structlog logger that is made when it is first used."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def info(self, event: str, /, **fields: Any) -> None:
        """Something an operator may want to know."""
        self._logger().info(event, **fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Something odd that PyFlue can live with."""
        self._logger().warning(event, **fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Something that went wrong; pass `exc_info=error` to show the traceback."""
        self._logger().error(event, **fields)

    def _logger(self) -> Any:
        import structlog

        if not structlog.is_configured():
            configure(pretty=sys.stderr.isatty())
        return structlog.get_logger(room=self._name)


def logger(name: str) -> Logger:
    """The logger of a module."""
    return Logger(name)


def configure(*, pretty: bool) -> None:
    """Choose how lines are written: coloured text for people, or JSON for machines."""
    import logging

    import structlog

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if pretty:
        shared.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    else:
        shared += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
