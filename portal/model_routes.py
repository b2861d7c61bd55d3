"""Model routes: where calls for a model go, on the settings page."""

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect

from portal.access import PortalRequest, action, utc_now
from portal.forms import ModelRouteForm
from portal.settings import show_settings
from serving.model_routes import UnableToRoute, remove_model_route, set_model_route
from tenants.core.roles import Right


@action(Right.MANAGE_PROVIDERS)
def make_route(request: PortalRequest) -> HttpResponse:
    """Set a route, in place of the model's earlier one."""
    form = ModelRouteForm(request.POST)
    if not form.is_valid():
        return show_settings(request, route_form=form, status=400)
    try:
        asked_model = form.cleaned_data["asked_model"]
        set_model_route(asked_model, form.destinations(), actor=request.member.actor, now=utc_now())
    except UnableToRoute as error:
        said = f"{error}"
        form.add_error(None, f"{said[:1].upper()}{said[1:]}.")
        return show_settings(request, route_form=form, status=400)
    messages.success(request, "Calls go there within seconds.")
    return redirect("portal:settings")


@action(Right.MANAGE_PROVIDERS)
def remove(request: PortalRequest) -> HttpResponse:
    """Take a route away."""
    if not remove_model_route(request.POST.get("asked_model", ""), actor=request.member.actor, now=utc_now()):
        raise Http404
    messages.success(request, "The route is removed.")
    return redirect("portal:settings")
