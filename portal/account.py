"""Coming in and going out: sign-up, log-in, log-out, the demo's one click, and another password."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, logout, update_session_auth_hash
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods, require_POST

from portal.access import PortalRequest, action, page, show, utc_now
from portal.forms import PasswordForm, SignUpForm
from portal.throttle import (
    UnableToCount,
    address_of,
    count_try,
    is_throttled,
    remember_device,
    who_tries,
)
from tenants.members import change_password
from tenants.models import Membership, User
from tenants.provision import UnableToSignUp, sign_up


@require_http_methods(["GET", "HEAD", "POST"])
def sign_up_page(request: HttpRequest) -> HttpResponse:
    """Make a company and its owner, and let them in."""
    if request.user.is_authenticated:
        return redirect("portal:overview")
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and (user := _sign_up(request, form)) is not None:
        response = redirect("portal:overview")
        remember_device(response, user)
        return response
    return show(request, "sign_up.html", form=form, status=400 if form.errors else 200)


def _sign_up(request: HttpRequest, form: SignUpForm) -> User | None:
    """The new owner; where it did not work, the form says why."""
    try:
        address = address_of(request)
        if is_throttled("sign-up", address):
            form.add_error(None, "Too many sign-ups from your address. Try again in a quarter of an hour.")
            return None
        count_try("sign-up", address)
        _, user = sign_up(**form.cleaned_data, now=utc_now())
    except UnableToCount:
        form.add_error(None, "Sign-up is not possible at the moment. Try again soon.")
        return None
    except UnableToSignUp as error:
        form.add_error("email", f"{error}".capitalize() + ".")
        return None
    login(request, user)
    return user


class LogIn(LoginView):
    """Log-in by e-mail and password; failures close the door for a quarter of an hour, by address and by account."""

    template_name = "portal/log_in.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Refuse before the password is looked at where guessing is going on."""
        try:
            if is_throttled("failed-log-in", address_of(request)):
                return self._refuse("Too many failures from your address. Try again in a quarter of an hour.", 429)
            if is_throttled("failed-log-in-to-account", self._who()):
                return self._refuse("Too many failures for this account. Try again in a quarter of an hour.", 429)
            return super().post(request, *args, **kwargs)
        except UnableToCount:
            return self._refuse("Log-in is not possible at the moment. Try again soon.", 503)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        """Know this browser from now on."""
        response = super().form_valid(form)
        remember_device(response, User.objects.get(pk=form.get_user().pk))
        return response

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        """Count it."""
        count_try("failed-log-in", address_of(self.request))
        count_try("failed-log-in-to-account", self._who())
        response = super().form_invalid(form)
        response.status_code = 400
        return response

    def _who(self) -> str:
        return who_tries(self.request, self.request.POST.get("username", ""))

    def _refuse(self, words: str, status: int) -> HttpResponse:
        return show(self.request, "log_in.html", form=AuthenticationForm(self.request), refusal=words, status=status)


@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    logout(request)
    return redirect("portal:log-in")


@require_POST
def log_in_to_demo(request: HttpRequest) -> HttpResponse:
    """One click, as the newest company's owner. Not there at all outside the demo."""
    if not settings.DEMO or settings.PRODUCTION:
        raise Http404
    owner = Membership.across_tenants.filter(role=Membership.Role.OWNER).order_by("-id").first()
    if owner is None:
        return redirect("portal:sign-up")
    login(request, User.objects.get(id=owner.user_id))
    return redirect("portal:overview")


@page()
def password_page(request: PortalRequest) -> HttpResponse:
    """Where a person gives themselves another password."""
    return show(request, "password.html", form=PasswordForm(_person(request)))


@action(None)
def change_own_password(request: PortalRequest) -> HttpResponse:
    """Take the new password; this session goes on, the person's others end."""
    person = _person(request)
    try:
        if is_throttled("failed-password-change", str(person.pk)):
            return _refuse_change(request, person, "Too many tries. Wait a quarter of an hour.", status=429)
        form = PasswordForm(person, request.POST)
        if "old_password" in form.errors:
            count_try("failed-password-change", str(person.pk))
    except UnableToCount:
        return _refuse_change(request, person, "Try again shortly: tries cannot be counted at the moment.", status=503)
    if not form.is_valid():
        return show(request, "password.html", form=form, status=400)
    change_password(person, password=form.cleaned_data["new_password1"], actor=request.member.actor, now=utc_now())
    update_session_auth_hash(request, person)
    messages.success(request, "Your password is changed.")
    response = redirect("portal:settings")
    remember_device(response, person)
    return response


def _refuse_change(request: PortalRequest, person: User, why: str, *, status: int) -> HttpResponse:
    """Without a look at what was typed: the answer must not tell whether the old password was right."""
    messages.error(request, why)
    return show(request, "password.html", form=PasswordForm(person), status=status)


def _person(request: PortalRequest) -> User:
    return User.objects.get(id=request.member.user_id)
