"""The first page: what is answered by whom, how well, what it saved, and what wants a person."""

from typing import Any

from django.http import HttpResponse
from django_htmx.http import HttpResponseClientRefresh

from ingestion.models import Workload
from portal.access import PortalRequest, page, show, utc_now
from portal.attention import what_needs_attention
from portal.charts import draw_calls
from portal.figures import count_calls, current_statement, has_calls, measure_agreement, measure_spend, open_rollouts
from tenants.models import ApiKey, ProviderCredential


@page()
def overview(request: PortalRequest) -> HttpResponse:
    """Figures, or the way to the first call where there is none yet."""
    if not has_calls():
        return show(
            request,
            "welcome.html",
            has_key=ApiKey.objects.filter(revoked_at=None).exists(),
            has_credential=ProviderCredential.objects.exists(),
        )
    return show(request, "overview.html", **_figures())


@page()
def overview_figures(request: PortalRequest) -> HttpResponse:
    """The same figures alone, for the page to refresh itself with; the whole page at the first call."""
    if "waiting" in request.GET:
        return HttpResponseClientRefresh() if has_calls() else HttpResponse(status=204)
    return show(request, "_overview.html", **_figures())


def _figures() -> dict[str, Any]:
    now = utc_now()
    spend = measure_spend(now)
    rollouts = open_rollouts()
    return {
        "calls_chart": draw_calls(count_calls(now)),
        "statement": current_statement(now),
        "agreement": measure_agreement(),
        "notices": what_needs_attention(now),
        "workloads": [
            (one, spend.get(one.id), rollouts.get(one.id)) for one in Workload.objects.order_by("-found_at")[:6]
        ],
        "now": now,
    }
