"""What a machine that runs the web process asks it: is it there, can it work, how is it doing."""

import time
from collections.abc import Callable
from typing import Final

import redis
from django.conf import settings
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

ANSWERED: Final = Counter("understudy_web_requests", "Requests answered", ["view", "method", "status"])
SECONDS: Final = Histogram("understudy_web_seconds", "Seconds until the answer", ["view"])


def healthz(request: HttpRequest) -> HttpResponse:
    """200 while the process answers at all."""
    return HttpResponse("ok\n", content_type="text/plain")


def readyz(request: HttpRequest) -> JsonResponse:
    """200 if both database roles and Valkey answer, else 503 and which does not, but no more: errors hold addresses."""
    parts = {**{name: _database_answers(name) for name in ("default", "door")}, "valkey": _valkey_answers()}
    return JsonResponse(parts, status=200 if all(parts.values()) else 503)


def metrics(request: HttpRequest) -> HttpResponse:
    """Counters for Prometheus, by view name; nothing of a tenant is in them."""
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


class Measured:
    """Counts every answer of the web process and how long it took."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, and count it under the view's name: a path would hold ids, one series each."""
        began = time.perf_counter()
        response = self.get_response(request)
        view = (request.resolver_match.view_name if request.resolver_match else "") or "unknown"
        method = request.method if request.method in {"GET", "POST", "PUT", "HEAD"} else "other"
        ANSWERED.labels(view, method, response.status_code).inc()
        SECONDS.labels(view).observe(time.perf_counter() - began)
        return response


def _database_answers(name: str) -> bool:
    try:
        with connections[name].cursor() as cursor:
            cursor.execute("SELECT 1")
            return True
    except DatabaseError:
        return False


def _valkey_answers() -> bool:
    try:
        with redis.Redis.from_url(settings.VALKEY_URL, socket_timeout=1, socket_connect_timeout=1) as valkey:
            return bool(valkey.ping())
    except (redis.RedisError, OSError):
        return False
