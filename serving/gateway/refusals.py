"""The one exception by which the gateway says no, so that one place renders it in the caller's dialect."""

import math
from datetime import UTC, datetime

from ingestion.core.calls import Dialect
from ingestion.core.dialects import render_error
from serving.core.limits import LimitEntry, Measure, Window, lease_of, shown
from serving.gateway.wire import Headers


class Refused(Exception):
    """The call ends here. `message` is safe to show; `retry_after` is seconds, for what will pass. `elsewhere`: it is
    about one of the destinations of the call, and another may answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        elsewhere: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.elsewhere = elsewhere
        self.extra: Headers = []  # what the caller is told besides

    def headers(self) -> Headers:
        """Response headers besides the length."""
        found: Headers = [(b"content-type", b"application/json"), *self.extra]
        if self.retry_after is not None:
            found.append((b"retry-after", b"%d" % self.retry_after))
        return found

    def body(self, dialect: Dialect) -> bytes:
        """The error as the caller's SDK expects it."""
        return render_error(dialect, status=self.status, kind=self.kind, message=self.message, param=self.param)


def invalid_key() -> Refused:
    """401, and only on a positive no: clients throw a refused key away."""
    return Refused(401, "authentication_error", "The API key is missing, unknown or revoked.")


def suspended() -> Refused:
    """403: the key is good, the tenant is not in force."""
    return Refused(403, "permission_error", "This tenant is suspended.")


def no_teacher(provider: str) -> Refused:
    """403: the tenant has stored no credential at the provider."""
    return Refused(403, "permission_error", f"No {provider} credential is stored for this tenant.")


def too_large(limit: int) -> Refused:
    """413."""
    return Refused(413, "invalid_request_error", f"The request is larger than {limit} bytes.")


def body_incomplete() -> Refused:
    """400: what was announced is not what came."""
    return Refused(400, "invalid_request_error", "The body has not the length that was announced.")


def body_late() -> Refused:
    """408."""
    return Refused(408, "invalid_request_error", "The body did not arrive in time.")


def no_upgrade() -> Refused:
    """400: after an upgrade nobody knows where a request ends."""
    refused = Refused(400, "invalid_request_error", "No other protocol is offered here: send no `upgrade`.")
    refused.extra = [(b"connection", b"close")]
    return refused


def no_such_path() -> Refused:
    """404 for everything that is not served."""
    return Refused(404, "not_found_error", "There is no such endpoint.")


def loop() -> Refused:
    """508: the provider's address that the tenant stored leads back here."""
    return Refused(508, "invalid_request_error", "The provider's address leads back to this gateway.")


def no_snapshot() -> Refused:
    """503: this gateway has not been told about keys yet. Never a 401."""
    return Refused(503, "overloaded_error", "The gateway is starting. Try again shortly.", retry_after=2)


def teacher_unreachable() -> Refused:
    """502."""
    return Refused(502, "api_error", "The provider could not be reached.", elsewhere=True)


def teacher_left_alone(seconds: float) -> Refused:
    """503 at once: the provider gave no answer lately, and nobody has tried it again yet."""
    message = "The provider could not be reached lately. Try again shortly."
    return Refused(503, "overloaded_error", message, retry_after=max(1, math.ceil(seconds)), elsewhere=True)


def too_many_calls(most: int) -> Refused:
    """429: one tenant's calls are to leave room for another's."""
    return Refused(429, "rate_limit_error", f"{most} calls of this tenant are under way already.", retry_after=1)


def too_many_in_flight(most: int) -> Refused:
    """429: the tenant's own calls wait for its provider, and as many again for them."""
    message = f"Over {most} calls of this tenant are waiting for the provider."
    return Refused(429, "rate_limit_error", message, retry_after=1, elsewhere=True)


def too_much_held(most: int) -> Refused:
    """429: the bodies of the tenant's own calls under way, all together."""
    message = f"The bodies of this tenant's calls under way are over {most} bytes together."
    return Refused(429, "rate_limit_error", message, retry_after=1)


def limit_reached(limit: LimitEntry, dialect: Dialect, *, need: int, left: int, ends: float, now: float) -> Refused:
    """429: a limit that the tenant set itself. `need` is what was to be set aside, and `left` what there is, in the
    limit's unit; `ends` and `now` are seconds since the epoch.
    """
    seconds = max(1, math.ceil(ends - now))
    used_up = left <= lease_of(limit.amount) or need > limit.amount
    if not used_up:  # it is held by calls under way, of which some will give it back
        seconds = min(seconds, 30)
    scope = "this key" if limit.key_id else "this workload" if limit.workload_id else "this tenant"
    message = f"The limit of {shown(limit)} a {limit.window} on {scope} leaves no room for this call."
    if need > limit.amount:
        message += " It may take more than all of it: a lower max_tokens would help."
    refused = Refused(429, "rate_limit_error", message, retry_after=seconds)
    refused.extra = _limit_headers(limit, dialect, left=left, ends=ends, seconds=seconds)
    if used_up and limit.window != Window.MINUTE:
        refused.extra.append((b"x-should-retry", b"false"))  # the SDKs would sit out minutes, and try in vain
    return refused


def unmeasured() -> Refused:
    """403: nobody could hold this to the tenant's limits."""
    message = "This is charged without our seeing it, and this tenant limits its tokens or its spend."
    return Refused(403, "permission_error", message)


def _limit_headers(limit: LimitEntry, dialect: Dialect, *, left: int, ends: float, seconds: int) -> Headers:
    """As the dialect's provider names them; nobody has a header for money."""
    if limit.measure == Measure.SPEND:
        return []
    if dialect is Dialect.ANTHROPIC:
        kind, reset = f"anthropic-ratelimit-{limit.measure}-".encode(), datetime.fromtimestamp(ends, UTC)
        told = [(b"limit", limit.amount), (b"remaining", left), (b"reset", reset.strftime("%Y-%m-%dT%H:%M:%SZ"))]
        return [(kind + name, str(value).encode()) for name, value in told]
    told = [(b"limit", limit.amount), (b"remaining", left), (b"reset", f"{seconds}s")]
    return [(b"x-ratelimit-%s-%s" % (name, limit.measure.encode()), str(value).encode()) for name, value in told]


def no_place_in_time() -> Refused:
    """429: the calls before it did not end soon enough."""
    message = "Too many calls of this tenant wait for the provider."
    return Refused(429, "rate_limit_error", message, retry_after=5, elsewhere=True)


def teacher_late() -> Refused:
    """504."""
    return Refused(504, "api_error", "The provider did not answer in time.", elsewhere=True)


def our_fault() -> Refused:
    """500: an error of this gateway."""
    return Refused(500, "api_error", "The gateway failed to answer this call.")
