"""Coming in and going out: sign-up, log-in, log-out, and the demo's one click."""

from typing import Any

from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods, require_POST

from portal.access import show, utc_now
from portal.forms import SignUpForm
from portal.throttle import UnableToCount, count_try, is_throttled
from tenants.models import Membership, User
from tenants.provision import UnableToSignUp, sign_up


@require_http_methods(["GET", "HEAD", "POST"])
def sign_up_page(request: HttpRequest) -> HttpResponse:
    """Make a company and its owner, and let them in."""
    if request.user.is_authenticated:
        return redirect("portal:overview")
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and _sign_up(request, form):
        return redirect("portal:overview")
    return show(request, "sign_up.html", form=form, status=400 if form.errors else 200)


def _sign_up(request: HttpRequest, form: SignUpForm) -> bool:
    """Whether it worked; why not is said in the form."""
    try:
        if is_throttled(request, "sign-up"):
            form.add_error(None, "Too many sign-ups from your address. Try again in a quarter of an hour.")
            return False
        count_try(request, "sign-up")
        _, user = sign_up(**form.cleaned_data, now=utc_now())
    except UnableToCount:
        form.add_error(None, "Sign-up is not possible at the moment. Try again soon.")
        return False
    except UnableToSignUp as error:
        form.add_error("email", f"{error}".capitalize() + ".")
        return False
    login(request, user)
    return True


class LogIn(LoginView):
    """Log-in by e-mail and password; ten failures from an address close the door to it for a quarter of an hour."""

    template_name = "portal/log_in.html"
    redirect_authenticated_user = True

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Refuse before the password is looked at where guessing is going on."""
        try:
            if is_throttled(request, "failed-log-in"):
                return self._refuse("Too many failures from your address. Try again in a quarter of an hour.", 429)
            return super().post(request, *args, **kwargs)
        except UnableToCount:
            return self._refuse("Log-in is not possible at the moment. Try again soon.", 503)

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        """Count it."""
        count_try(self.request, "failed-log-in")
        response = super().form_invalid(form)
        response.status_code = 400
        return response

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
