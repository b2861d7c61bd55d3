"""Wakes workers: the broker only says that there may be something to do, and the rows say what."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from celery import Task
from django.conf import settings
from django.core.cache import cache


def wake(task: Task, **ids: UUID) -> None:
    """Wake a worker, unless none is free within two looks: a later look asks again, so nothing piles up."""
    named = {name: str(value) for name, value in ids.items()}
    task.apply_async(kwargs=named, expires=max(2 * settings.BEAT_SECONDS, 60))


@contextmanager
def alone_at(what: str, tenant_id: UUID, *, seconds: int) -> Iterator[bool]:
    """Whether no other worker is at the same work of the same tenant; one that is lost keeps others off so long.

    It spares work and decides nothing: what two may not both write is for the database to hold.
    """
    key = f"alone:{what}:{tenant_id}"
    mine = bool(cache.add(key, 1, seconds))
    try:
        yield mine
    finally:
        if mine:
            cache.delete(key)
