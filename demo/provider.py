"""Finds out who takes the teacher's place: the provider that the environment names, in the dialects it speaks."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from demo.workloads import DIALECTS

SECONDS = 15.0


class UnableToUse(Exception):
    """The environment names a provider that cannot take the teacher's place; the message says why."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Who answers. `model` is what it is asked for, each workload's own if none is named."""

    base_url: str  # without the /v1
    key: str = field(repr=False)
    dialects: tuple[str, ...] = DIALECTS
    model: str = ""


def real_provider(environ: Mapping[str, str]) -> Provider | None:
    """The provider of TEACHER_BASE_URL, TEACHER_API_KEY and, optional, TEACHER_MODEL; None without them.

    Raises UnableToUse where one is missing, or where the provider lists its models in neither dialect to this key.
    """
    base_url, key = environ.get("TEACHER_BASE_URL", ""), environ.get("TEACHER_API_KEY", "")
    if not base_url and not key:
        return None
    if not base_url or not key:
        raise UnableToUse("TEACHER_BASE_URL and TEACHER_API_KEY go together: one of them is not set")
    base_url = base_url.rstrip("/").removesuffix("/v1")
    answers = {dialect: _ask_for_models(base_url, _headers(dialect, key)) for dialect in DIALECTS}
    dialects = tuple(dialect for dialect, answer in answers.items() if answer == "200")
    if not dialects:
        told = ", ".join(f"{answer} in the {dialect} dialect" for dialect, answer in answers.items())
        raise UnableToUse(f"the teacher's /v1/models answers {told}")
    return Provider(base_url, key, dialects, environ.get("TEACHER_MODEL", ""))


def _headers(dialect: str, key: str) -> dict[str, str]:
    if dialect == "anthropic":
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
    return {"authorization": f"Bearer {key}"}


def _ask_for_models(base_url: str, headers: dict[str, str]) -> str:
    """The status, or the kind of failure."""
    try:
        request = urllib.request.Request(f"{base_url}/v1/models", headers=headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except (OSError, ValueError) as error:
        return type(error).__name__
