"""Wakes workers: the broker only says that there may be something to do, and the rows say what."""

from uuid import UUID

from celery import Task
from django.conf import settings


def wake(task: Task, **ids: UUID) -> None:
    """Wake a worker, unless none is free within two looks: a later look asks again, so nothing piles up."""
    named = {name: str(value) for name, value in ids.items()}
    task.apply_async(kwargs=named, expires=max(2 * settings.BEAT_SECONDS, 60))
