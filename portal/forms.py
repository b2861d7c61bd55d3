"""What people may type, and what is said when it can't be."""

from typing import Any

from django import forms
from django.contrib.auth.forms import PasswordChangeForm
from django.contrib.auth.password_validation import validate_password

from ingestion.core.calls import Provider
from ingestion.erase import LONGEST_SUBJECT
from ingestion.models import Workload
from serving.model_routes import Destination
from tenants.core.roles import Role
from tenants.credentials import SECRET_PATTERN, SECRET_RULE, UnableToSendThere, check_base_url
from tenants.models import ApiKey, ProviderCredential, Tenant, User

APPROVALS = [
    (Workload.Approval.TENANT, "As set for the company"),
    (Workload.Approval.AUTOMATIC, "Automatic: start when certified"),
    (Workload.Approval.ASK_FIRST, "Ask me first"),
]
PROMISES = [
    (Workload.Promise.PER_ANSWER, "of the student’s answers"),
    (Workload.Promise.PER_CALL, "of all calls"),
]
STANCES = [
    (ProviderCredential.Stance.ALLOWED, "Allowed: an open-weight teacher, or terms that permit distillation"),
    (ProviderCredential.Stance.INTERNAL_ONLY, "Internal only: a narrow student for ourselves, never passed on"),
    (ProviderCredential.Stance.FORBIDDEN, "Forbidden: keep its answers out of every dataset"),
]
SCOPES = [
    (ApiKey.Scope.CALLS, "Calls: the gateway alone"),
    (ApiKey.Scope.MANAGE, "Manage: the gateway and the API, which reads figures and steers rollouts"),
]
MEASURES = [("spend", "US dollars at the provider"), ("tokens", "Tokens, read and written"), ("requests", "Requests")]
WINDOWS = [("month", "Month"), ("day", "Day"), ("minute", "Minute")]
PASSWORD_RULE = "Ten characters or more, and not a common one."
PROVIDERS = [
    (Provider.OPENAI.value, "OpenAI, or another that speaks its dialect"),
    (Provider.ANTHROPIC.value, "Anthropic"),
    (Provider.AZURE.value, "Azure OpenAI"),
]


def _password(autocomplete: str) -> forms.PasswordInput:
    return forms.PasswordInput(attrs={"autocomplete": autocomplete})


class SignUpForm(forms.Form):
    """A company and its first person."""

    company = forms.CharField(max_length=120, widget=forms.TextInput(attrs={"autocomplete": "organization"}))
    email = forms.EmailField(label="E-mail", widget=forms.EmailInput(attrs={"autocomplete": "username"}))
    password = forms.CharField(max_length=256, widget=_password("new-password"), help_text=PASSWORD_RULE)

    def clean(self) -> dict[str, Any]:
        """Hold the password against the validators, the address included."""
        cleaned = super().clean() or self.cleaned_data
        return _with_checked_password(self, cleaned)


class PasswordForm(PasswordChangeForm):
    """A person's own password, and another."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["new_password1"].help_text = PASSWORD_RULE


class MemberForm(forms.Form):
    """A person to add."""

    email = forms.EmailField(label="E-mail")
    role = forms.ChoiceField(choices=[(role.value, role.value.capitalize()) for role in Role], initial=Role.ENGINEER)
    password = forms.CharField(
        label="First password", max_length=256, widget=_password("new-password"), help_text="Hand it over in person."
    )

    def clean(self) -> dict[str, Any]:
        """Hold the password against the validators, the address included."""
        cleaned = super().clean() or self.cleaned_data
        return _with_checked_password(self, cleaned)


class RoleForm(forms.Form):
    """A member's other role."""

    role = forms.ChoiceField(choices=[(role.value, role.value.capitalize()) for role in Role])


class KeyForm(forms.Form):
    """A key to make."""

    name = forms.CharField(max_length=80, help_text="Where it will be used, such as “checkout, production”.")
    scope = forms.ChoiceField(choices=SCOPES, initial=ApiKey.Scope.CALLS)
    may_override = forms.BooleanField(
        required=False,
        label="May override",
        help_text="Lets calls under this key ask for the teacher, or for no log, by request header.",
    )


class OneOfOurs(forms.ModelChoiceField):  # type: ignore[type-arg]  # which it does not take at run time
    """A row of the tenant's; its form says which there are, once there is a tenant."""

    def __init__(self, *, empty_label: str, required: bool = False, label: str | None = None) -> None:
        super().__init__(queryset=None, required=required, empty_label=empty_label, label=label)

    def label_from_instance(self, row: ApiKey | Workload | ProviderCredential) -> str:
        """By its name, and a key also by how it begins."""
        return f"{row.name} ({row.prefix}…)" if isinstance(row, ApiKey) else row.name


class LimitForm(forms.Form):
    """A limit to set."""

    measure = forms.ChoiceField(label="What is limited", choices=MEASURES)
    amount = forms.DecimalField(max_digits=25, decimal_places=9, help_text="Requests, tokens, or US dollars.")
    window = forms.ChoiceField(label="Per", choices=WINDOWS, help_text="Of the calendar, in UTC.")
    key = OneOfOurs(empty_label="All keys")
    workload = OneOfOurs(empty_label="All workloads")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["key"].queryset = ApiKey.objects.filter(revoked_at=None).order_by("name")  # type: ignore[attr-defined]
        self.fields["workload"].queryset = Workload.objects.order_by("name")  # type: ignore[attr-defined]


class PromiseForm(forms.Form):
    """What a workload's student has to keep."""

    alpha = forms.FloatField(
        label="α, the most it may differ", min_value=0.001, max_value=0.5, help_text="0.05: at most 5 % differ."
    )
    delta = forms.FloatField(
        label="δ, the risk of being wrong about that", min_value=0.001, max_value=0.5, help_text="0.1: 90 % sure."
    )
    promise = forms.ChoiceField(label="Share", choices=PROMISES)
    approval = forms.ChoiceField(label="Going live", choices=APPROVALS)


class LoggingForm(forms.Form):
    """How much of a workload is kept with its content."""

    log_share = forms.FloatField(
        label="Share kept", min_value=0, max_value=1, help_text="1: of every call. 0.1: of one in ten, at random."
    )


class ReasonForm(forms.Form):
    """Why, for the event log."""

    reason = forms.CharField(max_length=300)


class EndpointForm(forms.Form):
    """Where to deliver events."""

    url = forms.URLField(label="URL", max_length=500, assume_scheme="https")
    kinds = forms.CharField(
        required=False,
        max_length=500,
        help_text="Separated by commas, such as rollout.full, rollout.rolled_back. Empty: all.",
    )

    def clean_kinds(self) -> list[str]:
        """The kinds as a list."""
        return [kind.strip()[:60] for kind in str(self.cleaned_data["kinds"]).split(",") if kind.strip()]


class PreferencesForm(forms.Form):
    """What a tenant chooses for all of itself."""

    name = forms.CharField(label="Company", max_length=120)
    approval = forms.ChoiceField(
        label="When a student is certified",
        choices=[
            (Tenant.Approval.ASK_FIRST, "Ask me before it answers anybody"),
            (Tenant.Approval.AUTOMATIC, "Start by itself, a step at a time"),
        ],
    )
    log_content = forms.BooleanField(
        required=False,
        label="Keep what was asked and answered",
        help_text="Sealed with your own key. Without it no student can be trained.",
    )
    ask_usage = forms.BooleanField(
        required=False,
        label="Have providers count the tokens of streams",
        help_text="Adds stream_options.include_usage to chat completions that say nothing of it, and keeps the extra "
        "chunk from your code. Without it such tokens are estimated.",
    )


class ErasureForm(forms.Form):
    """A person to be forgotten, to the letter: a space more would be somebody else."""

    subject = forms.CharField(
        label="Person",
        max_length=LONGEST_SUBJECT,
        strip=False,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="As your calls name them in user, safety_identifier or metadata.user_id, to the letter.",
    )


class StanceForm(forms.Form):
    """What a provider's terms let us do."""

    stance = forms.ChoiceField(label="Its terms on training", choices=STANCES, initial=STANCES[1][0])


class CredentialForm(StanceForm):
    """A key of the tenant's at a provider."""

    name = forms.SlugField(
        max_length=40,
        required=False,
        help_text="For a second key at a provider, such as “openai-eu”. Without one it is the provider’s usual key.",
    )
    provider = forms.ChoiceField(choices=PROVIDERS)
    base_url = forms.CharField(
        label="Base URL", max_length=300, help_text="Without /v1. Azure’s is https://….openai.azure.com."
    )
    secret = forms.RegexField(
        SECRET_PATTERN,
        label="Provider key",
        strip=True,
        error_messages={"invalid": SECRET_RULE},
        max_length=500,
        min_length=8,
        widget=_password("off"),
        help_text="Sealed; never shown again.",
    )
    field_order = ["provider", "name", "base_url", "secret", "stance"]

    def clean_base_url(self) -> str:
        """An address calls may be sent to."""
        try:
            return check_base_url(str(self.cleaned_data["base_url"]))
        except UnableToSendThere as error:
            raise forms.ValidationError(str(error)) from error


def _with_checked_password(form: forms.Form, cleaned: dict[str, Any]) -> dict[str, Any]:
    if "password" in cleaned:
        try:
            validate_password(cleaned["password"], User(email=cleaned.get("email", "")))
        except forms.ValidationError as error:
            form.add_error("password", error)
    return cleaned


class ModelRouteForm(forms.Form):
    """Where calls for a model go: the first destination, and up to four that are asked where it cannot answer."""

    PLACES = ("first", "second", "third", "fourth", "fifth")

    asked_model = forms.CharField(
        label="Calls for the model",
        max_length=120,
        help_text="As your code names it: the provider’s name, a deployment, or a name of your own. * is all others.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.PLACES:
            first = name == self.PLACES[0]
            self.fields[name] = OneOfOurs(
                empty_label="Choose one" if first else "Nowhere else",
                required=first,
                label="Go under the provider key" if first else "and if that one cannot answer, under",
            )
            self.fields[name].queryset = ProviderCredential.objects.order_by("name")  # type: ignore[attr-defined]
            hint = "Empty: as your code names it." if first else ""
            self.fields[f"{name}_model"] = forms.CharField(
                label="as the model", max_length=120, required=False, help_text=hint
            )

    def destinations(self) -> list[Destination]:
        """In the order in which they are asked."""
        told = [(self.cleaned_data[name], self.cleaned_data[f"{name}_model"]) for name in self.PLACES]
        return [Destination(credential, model) for credential, model in told if credential is not None]
