"""Holds that a log line says where and how something failed, and never what a row held."""

import io
import logging

import pytest
from celery import shared_task
from django.db import DatabaseError

from config.celery import app
from config.logs import DiscreetFormatter

SECRET = "the prompt of a customer"


@shared_task
def quote_a_row(**_):
    try:
        raise ValueError(f"Key (text)=({SECRET}) exists")
    except ValueError as error:
        raise DatabaseError(f"refused: {SECRET}") from error


@pytest.fixture
def lines():
    """What the console would show, by the very formatter and filters that are configured for it."""
    [console] = [
        handler for handler in logging.getLogger().handlers if isinstance(handler.formatter, DiscreetFormatter)
    ]
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    handler.setFormatter(console.formatter)
    for each in console.filters:
        handler.addFilter(each)
    logging.getLogger().addHandler(handler)
    yield shown
    logging.getLogger().removeHandler(handler)


def test_a_task_that_fails_is_told_by_place_and_kind(lines):
    quote_a_row.apply(kwargs={"note": SECRET})
    told = lines.getvalue()
    assert SECRET not in told
    assert "quote_a_row" in told and "builtins.ValueError" in told and "django.db.utils.DatabaseError" in told


def test_an_exception_that_hides_its_context_is_told_alone(lines):
    try:
        try:
            raise ValueError(SECRET)
        except ValueError:
            raise KeyError(SECRET) from None
    except KeyError:
        logging.getLogger("anything").exception("it failed")
    told = lines.getvalue()
    assert "it failed" in told and told.rstrip().endswith("builtins.KeyError")
    assert "ValueError" not in told and SECRET not in told


def test_an_exception_among_a_line_s_arguments_is_told_by_its_kind(lines):
    logging.getLogger("celery.worker").error("handler raised: %r", ValueError(SECRET))
    logging.getLogger("py.warnings").warning("%s", f"celery/app/trace.py:829: RuntimeWarning: {SECRET}")
    told = lines.getvalue()
    assert "handler raised: 'builtins.ValueError'" in told and "trace.py:829: RuntimeWarning" in told
    assert SECRET not in told


def test_celery_sets_up_no_handlers_that_would_tell_more():
    app.log.setup_logging_subsystem()
    assert all(isinstance(each, logging.NullHandler) for each in logging.getLogger("celery.task").handlers)
    assert logging.getLogger("celery.task").propagate
