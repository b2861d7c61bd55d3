"""What may stand in a log line: where something failed and what kind of failure it was, never its message.

A database's error quotes the row that it refuses, and a row may be a prompt. This is for the Django processes; Celery
is kept from setting up handlers of its own.
"""

import logging
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class DiscreetFormatter(logging.Formatter):
    """Tells an exception, and each that led to it, by frames and type."""

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 - logging's own name
        """The chain, the first cause first."""
        return "\n".join(
            "".join(traceback.format_tb(error.__traceback__)) + name_error(error) for error in _chain(ei[1])
        )


def name_error(error: BaseException) -> str:
    """The kind of failure, as code names it."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


class HideMessages(logging.Filter):
    """Takes exceptions' messages out of the lines that quote them: Celery's on failed tasks, and warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every line passes."""
        if isinstance(record.args, Mapping) and "exc" in record.args:
            error = record.exc_info[1] if record.exc_info else None
            told = name_error(error) if error is not None else "an exception"
            record.args = {**record.args, "exc": told, "traceback": ""}
        elif isinstance(record.args, tuple):
            record.args = tuple(_name_if_error(each) for each in record.args)
        if record.name == "py.warnings":
            place = record.getMessage().split(": ")[:2]  # file and line, category, text
            record.msg, record.args = "%s", (": ".join(place),)
        return True


def _name_if_error(value: object) -> object:
    return name_error(value) if isinstance(value, BaseException) else value


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error after what it was raised from or while handling, as Python would print them."""
    if error is None:
        return
    before = error.__cause__ if error.__cause__ is not None or error.__suppress_context__ else error.__context__
    yield from _chain(before)
    yield error
