"""What a path asks for, however it is spelt: raw paths are sent on as they came, and judged by their plain form.

Azure has paths of its own, `/openai/deployments/{deployment}/…` and `/openai/…`, each with a twin below `/v1/`.
"""

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

AZURE: Final = b"/openai/"
# What one server takes for another path than the next one does: dot segments, however they are spelt, empty ones,
# parameters of segments, and what is encoded twice.
_ODD: Final = re.compile(
    rb"(?:/|%2f)(?:/|%2f)|;|\\|\x00|%3b|%5c|%25|%00|(?:/|%2f)(?:\.|%2e){1,2}(?=/|%2f|$)", re.IGNORECASE
)
_DEPLOYMENT: Final = re.compile(rb"/openai/deployments/([A-Za-z0-9][A-Za-z0-9._-]{0,63})(/[^/].*)")


def is_odd(path: bytes) -> bool:
    """Whether a raw path may be read as another one further on."""
    return _ODD.search(path) is not None


def plain(path: bytes) -> bytes:
    """A raw path unencoded, in lower case, without a slash at its end, and as OpenAI's own API has it."""
    unencoded = unquote_to_bytes(path).lower().rstrip(b"/")
    return twin_of(unencoded)[0] if unencoded.startswith(AZURE) else unencoded


def twin_of(path: bytes) -> tuple[bytes, str]:
    """The path under `/v1/` that asks for the same as one of Azure's, and the deployment it names, if any."""
    found = _DEPLOYMENT.fullmatch(path)
    if found is not None:
        return b"/v1" + found[2], found[1].decode("ascii")
    rest = path.removeprefix(b"/openai")
    return (rest if rest.startswith(b"/v1/") else b"/v1" + rest), ""


def with_deployment(path: str, deployment: str) -> str:
    """A path of Azure's with another deployment, where it names one."""
    found = _DEPLOYMENT.fullmatch(path.encode("latin-1"))
    if found is None:
        return path
    return f"/openai/deployments/{quote(deployment, safe='')}{found[2].decode('latin-1')}"
