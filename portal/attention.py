"""What wants a person: the few things on which the pipeline stands still until somebody acts."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from django.urls import reverse

from serving.models import Deployment, Rollout
from tenants.models import ProviderCredential, WebhookEndpoint
from training.models import TrainingRun

LATELY = timedelta(days=7)


class Tone(StrEnum):
    """How much it matters."""

    ASK = "ask"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing, in a sentence, and where to act on it."""

    tone: Tone
    text: str
    url: str


def what_needs_attention(now: datetime) -> list[Notice]:
    """For the tenant in force."""
    return [*_providers(), *_rollouts(now), *_runs(now), *_deployments(now), *_endpoints()]


def _providers() -> Iterator[Notice]:
    url = reverse("portal:settings")
    stances = dict(ProviderCredential.objects.order_by("name").values_list("name", "stance"))
    if not stances:
        yield Notice(Tone.WARN, "No provider key is stored, so no call can be answered.", url)
    for name, stance in stances.items():
        if stance == ProviderCredential.Stance.FORBIDDEN:
            yield Notice(Tone.WARN, f"The terms stated for {name} forbid training, so nothing is learned from it.", url)


def _rollouts(now: datetime) -> Iterator[Notice]:
    for rollout in Rollout.objects.exclude(state=Rollout.State.SUPERSEDED).select_related("workload"):
        url, name = reverse("portal:workload", args=[rollout.workload_id]), rollout.workload.name
        if rollout.state == Rollout.State.HELD:
            yield Notice(Tone.WARN, f"{name} is on hold: the teacher answers until somebody resumes.", url)
        elif rollout.state == Rollout.State.ROLLED_BACK:
            if rollout.step_at > now - LATELY:
                yield Notice(Tone.BAD, f"{name} went back to the teacher: {rollout.reason or 'no reason given'}.", url)
        elif rollout.approved_at is None:
            yield Notice(Tone.ASK, f"{name} has a certified student in shadow. It waits for your approval.", url)


def _runs(now: datetime) -> Iterator[Notice]:
    failed = TrainingRun.objects.filter(status=TrainingRun.Status.FAILED, finished_at__gt=now - LATELY)
    for run in failed.select_related("dataset__workload")[:5]:
        url = reverse("portal:workload", args=[run.dataset.workload_id])
        yield Notice(Tone.BAD, f"Training for {run.dataset.workload.name} failed.", url)


def _deployments(now: datetime) -> Iterator[Notice]:
    failed = Deployment.objects.filter(status=Deployment.Status.FAILED, changed_at__gt=now - LATELY)
    for deployment in failed.select_related("adapter__workload")[:5]:
        url = reverse("portal:workload", args=[deployment.adapter.workload_id])
        yield Notice(Tone.BAD, f"A student of {deployment.adapter.workload.name} could not be loaded.", url)


def _endpoints() -> Iterator[Notice]:
    for endpoint in WebhookEndpoint.objects.exclude(disabled_at=None).filter(straight_failures__gt=0)[:5]:
        text = f"Deliveries to {endpoint.origin} failed again and again; it is disabled."
        yield Notice(Tone.WARN, text, reverse("portal:webhooks"))
