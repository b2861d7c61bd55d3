"""Model routes as a tenant's people see them: under which names calls are made, and where they go, one after another.

Data flow: a route is rows, one a destination → the feed puts them into the snapshot → gateways send each call to the
first destination, and to the next where that one cannot answer (`gateway/failover.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from ingestion.core.calls import LONGEST_MODEL
from ingestion.core.reading import is_storable
from serving.core.destinations import EVERY_MODEL, shared_dialect
from serving.models import ModelRoute
from tenants.events import record_event
from tenants.models import ProviderCredential, Tenant

MOST_DESTINATIONS = 5  # of a route: a caller waits for each
MOST_ROUTES = 200  # of a tenant


class UnableToRoute(Exception):
    """Such a route cannot be set; the message says why, for people."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A credential, and what the model is called there; "" is as asked."""

    credential: ProviderCredential
    model: str = ""


def set_model_route(
    asked_model: str, destinations: Sequence[Destination], *, actor: str, now: datetime
) -> list[ModelRoute]:
    """Send calls for a model there, in this order, in place of what was said before. In force within seconds.

    Raises UnableToRoute.
    """
    Tenant.objects.select_for_update().get()  # of two who set the same route at once one waits
    asked_model = asked_model.strip()
    destinations = [Destination(one.credential, one.model.strip()) for one in destinations]
    dialect = _check(asked_model, destinations)
    named = {one.credential.id for one in destinations}
    if len(ProviderCredential.objects.select_for_update().filter(id__in=named)) < len(named):
        raise UnableToRoute("one of these keys has been forgotten meanwhile")
    route = {"dialect": dialect, "asked_model": asked_model}
    ModelRoute.objects.filter(**route).delete()
    made = [
        ModelRoute.objects.create(**route, position=position, credential=one.credential, model=one.model, set_at=now)
        for position, one in enumerate(destinations)
    ]
    there = [{"credential": str(one.credential.id), "model": one.model} for one in destinations]
    record_event("model_route.set", now=now, actor=actor, **route, destinations=there)
    return made


def remove_model_route(asked_model: str, *, dialect: str, actor: str, now: datetime) -> bool:
    """Have calls for a model go where others go. False if it had no route in the dialect."""
    removed, _ = ModelRoute.objects.filter(dialect=dialect, asked_model=asked_model).delete()
    if removed:
        record_event("model_route.removed", now=now, actor=actor, dialect=dialect, asked_model=asked_model)
    return bool(removed)


def model_routes() -> list[list[ModelRoute]]:
    """Every route of the tenant in force as its destinations, by the asked-for model."""
    rows: Iterable[ModelRoute] = ModelRoute.objects.select_related("credential").order_by(
        "asked_model", "dialect", "position"
    )
    return [list(route) for _, route in groupby(rows, key=lambda one: (one.asked_model, one.dialect))]


def _check(asked_model: str, destinations: Sequence[Destination]) -> str:
    """The dialect of the requests that such a route takes. Raises UnableToRoute."""
    names = [asked_model, *(one.model for one in destinations)]
    if not asked_model or any(len(name) > LONGEST_MODEL or not is_storable(name) for name in names):
        raise UnableToRoute(f"a model's name has from 1 to {LONGEST_MODEL} characters")
    if not 1 <= len(destinations) <= MOST_DESTINATIONS:
        raise UnableToRoute(f"a route has from 1 to {MOST_DESTINATIONS} destinations")
    if len({(one.credential.id, one.model) for one in destinations}) < len(destinations):
        raise UnableToRoute("each destination is asked once: two of these are the same")
    if asked_model == EVERY_MODEL and any(one.model for one in destinations):
        raise UnableToRoute(f"{EVERY_MODEL} is all other models, and each keeps its name: leave the names empty")
    dialect = shared_dialect(one.credential.provider for one in destinations)
    if dialect is None:
        raise UnableToRoute("all destinations of a route must take the same requests: Anthropic's are none of OpenAI's")
    others = ModelRoute.objects.filter(position=0).exclude(dialect=dialect, asked_model=asked_model).count()
    if others >= MOST_ROUTES:
        raise UnableToRoute(f"there are {MOST_ROUTES} routes already: remove one first")
    return dialect
