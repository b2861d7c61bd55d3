"""Settings: what the tenant prefers, its providers and the stance on their terms, its people, its audit trail."""

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect

from portal.access import PortalRequest, action, page, show, utc_now
from portal.forms import CredentialForm, MemberForm, ModelRouteForm, PreferencesForm, RoleForm, StanceForm
from portal.paging import newest_first
from portal.spreadsheets import as_csv
from serving.model_routes import UnableToRoute, model_routes, remove_model_route, set_model_route
from serving.models import ModelRoute
from tenants.core.roles import Right, Role
from tenants.members import UnableToChangeMembers, add_member, change_role, remove_member
from tenants.models import Event, Membership, ProviderCredential, Tenant
from tenants.preferences import UnableToPrefer, state_preferences
from tenants.provision import UnableToRemove, UnableToStore, remove_credential, state_stance, store_credential

EVENTS_EXPORTED = 10_000


@page()
def settings_page(request: PortalRequest) -> HttpResponse:
    """Everything on one page."""
    return _show_settings(request)


@action(Right.MANAGE_TENANT)
def prefer(request: PortalRequest) -> HttpResponse:
    """Record the tenant's own choices."""
    form = PreferencesForm(request.POST)
    if not form.is_valid():
        return _show_settings(request, preferences=form, status=400)
    try:
        state_preferences(**form.cleaned_data, actor=request.member.actor, now=utc_now())
    except UnableToPrefer as error:
        form.add_error(None, f"{error}")
        return _show_settings(request, preferences=form, status=400)
    messages.success(request, "Saved.")
    return redirect("portal:settings")


@action(Right.MANAGE_PROVIDERS)
def keep_credential(request: PortalRequest) -> HttpResponse:
    """Seal a key at a provider, in place of an older one."""
    form = CredentialForm(request.POST)
    if not form.is_valid():
        return _show_settings(request, credential=form, status=400)
    try:
        store_credential(**form.cleaned_data, actor=request.member.actor, now=utc_now())
    except UnableToStore as error:
        form.add_error("name", f"{error}.")
        return _show_settings(request, credential=form, status=400)
    messages.success(request, "The provider key is sealed and in use within seconds.")
    return redirect("portal:settings")


@action(Right.MANAGE_PROVIDERS)
def forget_credential(request: PortalRequest, id: UUID) -> HttpResponse:
    """Forget a key at a provider."""
    credential: ProviderCredential = get_object_or_404(ProviderCredential.objects.all(), id=id)
    try:
        remove_credential(credential, actor=request.member.actor, now=utc_now())
        messages.success(request, "The key is forgotten, and out of use within seconds.")
    except UnableToRemove as error:
        messages.error(request, f"{error}".capitalize() + ".")
    return redirect("portal:settings")


@action(Right.MANAGE_PROVIDERS)
def set_route(request: PortalRequest) -> HttpResponse:
    """Set where calls for a model go, in place of what was said before."""
    form = ModelRouteForm(request.POST)
    if not form.is_valid():
        return _show_settings(request, route_form=form, status=400)
    try:
        asked_model = form.cleaned_data["asked_model"]
        set_model_route(asked_model, form.destinations(), actor=request.member.actor, now=utc_now())
    except UnableToRoute as error:
        said = f"{error}"
        form.add_error(None, f"{said[:1].upper()}{said[1:]}.")
        return _show_settings(request, route_form=form, status=400)
    messages.success(request, "Calls go there within seconds.")
    return redirect("portal:settings")


@action(Right.MANAGE_PROVIDERS)
def remove_route(request: PortalRequest) -> HttpResponse:
    """Take a route away."""
    named = {"asked_model": request.POST.get("asked_model", ""), "dialect": request.POST.get("dialect", "")}
    if not remove_model_route(**named, actor=request.member.actor, now=utc_now()):
        raise Http404
    messages.success(request, "The route is removed.")
    return redirect("portal:settings")


@action(Right.MANAGE_PROVIDERS)
def change_stance(request: PortalRequest, id: UUID) -> HttpResponse:
    """State what a provider's terms let us do from now on."""
    credential: ProviderCredential = get_object_or_404(ProviderCredential.objects.all(), id=id)
    form = StanceForm(request.POST)
    if form.is_valid():
        state_stance(credential, stance=form.cleaned_data["stance"], actor=request.member.actor, now=utc_now())
        messages.success(request, "The stance holds from now on; pairs keep the one they came in under.")
    else:
        messages.error(request, "That is no stance.")
    return redirect("portal:settings")


@action(Right.MANAGE_TENANT)
def add(request: PortalRequest) -> HttpResponse:
    """Let a person in."""
    form = MemberForm(request.POST)
    if not form.is_valid():
        return _show_settings(request, member_form=form, status=400)
    try:
        add_member(**form.cleaned_data, actor=request.member.actor, now=utc_now())
    except UnableToChangeMembers as error:
        form.add_error("email", f"{error}".capitalize() + ".")
        return _show_settings(request, member_form=form, status=400)
    messages.success(request, "Added.")
    return redirect("portal:settings")


@action(Right.MANAGE_TENANT)
def change(request: PortalRequest, id: int) -> HttpResponse:
    """Give a member another role."""
    member, form = _member(id), RoleForm(request.POST)
    if not form.is_valid():
        messages.error(request, "That is no role.")
        return redirect("portal:settings")
    try:
        change_role(member, role=form.cleaned_data["role"], actor=request.member.actor, now=utc_now())
        messages.success(request, "The role is changed.")
    except UnableToChangeMembers as error:
        messages.error(request, f"{error}".capitalize() + ".")
    return redirect("portal:settings")


@action(Right.MANAGE_TENANT)
def remove(request: PortalRequest, id: int) -> HttpResponse:
    """Take a member out."""
    try:
        remove_member(_member(id), actor=request.member.actor, now=utc_now())
        messages.success(request, "Removed.")
    except UnableToChangeMembers as error:
        messages.error(request, f"{error}".capitalize() + ".")
    return redirect("portal:settings")


@page()
def event_list(request: PortalRequest) -> HttpResponse:
    """The audit trail."""
    found = newest_first(Event.objects.all(), before=request.GET.get("before", ""))
    return show(request, "events.html", events=found.rows, next=found.next)


@page()
def events_csv(request: PortalRequest) -> HttpResponse:
    """The latest part of the audit trail for a spreadsheet."""
    events = Event.objects.order_by("-at", "-id")[:EVENTS_EXPORTED]
    rows = [(one.at, one.kind, one.actor, one.subject_id, one.data) for one in events]
    return as_csv("events.csv", ("at", "kind", "actor", "subject", "data"), rows)


def _member(id: int) -> Membership:
    found: Membership = get_object_or_404(Membership.objects.all(), id=id)
    return found


def _as_typed(routes: list[list[ModelRoute]], route_id: str) -> dict[str, object]:
    """A route as its form would have been filled in, to be changed; it is named by its first destination's id."""
    route = next((one for one in routes if str(one[0].id) == route_id), [])
    typed: dict[str, object] = {"asked_model": route[0].asked_model} if route else {}
    for name, one in zip(ModelRouteForm.PLACES, route, strict=False):
        typed |= {name: one.credential, f"{name}_model": one.model}
    return typed


def _show_settings(request: PortalRequest, *, status: int = 200, **forms: object) -> HttpResponse:
    tenant: Tenant = Tenant.objects.get()
    members = list(Membership.objects.select_related("user").order_by("id"))
    stated = {name: getattr(tenant, name) for name in ("name", "approval", "log_content", "ask_usage")}
    routes = model_routes()
    context: dict[str, object] = {
        "preferences": PreferencesForm(initial=stated),
        "credential": CredentialForm(),
        "route_form": ModelRouteForm(initial=_as_typed(routes, request.GET.get("route", ""))),
        "model_routes": routes,
        "member_form": MemberForm(),
        "credentials": [
            (one, StanceForm(initial={"stance": one.stance})) for one in ProviderCredential.objects.order_by("name")
        ],
        "members": [(one, RoleForm(initial={"role": one.role})) for one in members],
        "several_owners": sum(one.role == Role.OWNER for one in members) > 1,
        **forms,
    }
    return show(request, "settings.html", status=status, **context)
