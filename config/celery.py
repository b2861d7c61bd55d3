"""The broker's wiring, and the one table that says how often each stage looks at the one below it."""

import os
from typing import Any

from celery import Celery, Task
from celery.signals import setup_logging
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


class BoundedTask(Task):  # type: ignore[misc]
    """What hangs is told to end, and then killed: its claim runs out, and a later look takes it up again."""

    soft_time_limit = 600  # seconds
    time_limit = 720


app = Celery("understudy", task_cls=BoundedTask)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def keep_our_logging(**_: Any) -> None:
    """Celery sets up no handlers of its own where somebody listens here: ours tell no exception's message."""


@app.on_after_configure.connect
def set_schedule(sender: Celery, **_: Any) -> None:
    """Every look is idempotent, so a missed or a doubled one costs nothing."""
    beat = settings.BEAT_SECONDS
    sender.conf.beat_schedule = {
        name: {"task": name, "schedule": beat * factor, "options": {"expires": max(beat * factor, 30)}}
        for name, factor in STAGES.items()
    }


# stage → how many beats between two looks
STAGES = {
    "ingestion.tasks.discovery_due": 1,
    "ingestion.tasks.curation_due_everywhere": 1,
    "ingestion.tasks.erasures_due": 1,
    "ingestion.tasks.partitions_due": 60,
    "training.tasks.training_due": 1,
    "training.tasks.leftovers_due": 60,
    "serving.tasks.deployments_due": 1,
    "serving.tasks.evaluations_due": 1,
    "serving.tasks.rollouts_due": 1,
    "serving.tasks.audits_due": 1,
    "serving.tasks.limits_due": 1,
    "tenants.tasks.fan_out_due": 1,
    "tenants.tasks.deliver_due": 1,
    "billing.tasks.roll_up_due": 5,
    "billing.tasks.statements_due": 10,
    "billing.tasks.invoices_due": 30,
}
