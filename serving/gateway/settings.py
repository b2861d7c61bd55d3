"""What a gateway process is told by its environment, read once; a bad value stops the process before it listens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from tenants.core.sealing import DEMO_SECRET, derive_key

SNAPSHOT_CONTEXT = "snapshot/1"
SHORTEST_SECRET = 32
DEMO_SECRETS = b"demo-secret-"
ROOT = Path(__file__).resolve().parents[2]
FLAGS = {
    "": False,
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


class Ack(StrEnum):
    """What has a call's record once its caller has the last byte: see `commit.py`."""

    MEMORY = "memory"
    OS = "os"
    DISK = "disk"


class UnableToStart(Exception):
    """A setting is missing or wrong, or a part of the installation is; the message names it and never shows a value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One gateway's settings. Times are seconds, sizes bytes."""

    snapshot_file: Path
    spool_dir: Path
    snapshot_key: bytes = field(repr=False)
    counters_url: str = field(default="", repr=False)  # where limits are counted; empty: each process counts by itself
    answers_url: str = field(default="", repr=False)  # where answers are kept by idempotency keys; empty: nowhere
    host: str = "127.0.0.1"
    port: int = 8787
    processes: int = 1  # that take calls from the one port
    max_body_bytes: int = 10_000_000
    max_passed_bytes: int = 600_000_000  # of a request that passes through unread: a file, say
    spool_max_bytes: int = 8_000_000_000  # of records that the feed has not taken yet
    capture_ack: Ack = Ack.OS
    tenant_in_flight: int = 1024  # calls of one tenant at one provider; as many again may wait
    tenant_body_bytes: int = 268_435_456  # of one tenant's bodies that are held at a time
    student_timeout: float = 3.0  # at the most: one that has been quick for a while gets less
    teacher_timeout: float = 600.0  # of silence: to the first byte, or between two reads
    failover_timeout: float = 120.0  # of silence to the first byte, where there is another destination
    call_log: bool = False  # whether each call is a line on the standard output
    allow_private: bool = False  # whether a provider's address may lead to what only our own machines should reach


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read SNAPSHOT_FILE, SPOOL_DIR, SECRET_KEY (of which PRODUCTION takes no default), GATEWAY_HOST, GATEWAY_PORT,
    GATEWAY_PROCESSES, MAX_BODY_BYTES, MAX_PASSED_BYTES, SPOOL_MAX_BYTES, CAPTURE_ACK, TENANT_IN_FLIGHT,
    TENANT_BODY_BYTES, STUDENT_TIMEOUT_S, TEACHER_TIMEOUT_S, FAILOVER_TIMEOUT_S, COUNTERS_URL (or VALKEY_URL),
    ANSWERS_URL (without PRODUCTION, or VALKEY_URL), CALL_LOG, PROVIDER_ALLOW_PRIVATE and PRODUCTION.

    Raises UnableToStart.
    """
    production = _flag(environ, "PRODUCTION", default=False)
    bare = {} if production else _bare_machine(environ)  # in production nothing is kept where nobody has said
    environ = {**bare, **environ}
    secret = _text(environ, "SECRET_KEY").encode()
    if len(secret) < SHORTEST_SECRET:
        raise UnableToStart(f"SECRET_KEY is shorter than {SHORTEST_SECRET} bytes")
    if production and secret.startswith(DEMO_SECRETS):
        raise UnableToStart("SECRET_KEY is the demo's, and PRODUCTION is set")
    return Settings(
        snapshot_file=Path(_text(environ, "SNAPSHOT_FILE")),
        spool_dir=Path(_text(environ, "SPOOL_DIR")),
        snapshot_key=snapshot_key(secret),
        counters_url=_valkey(environ, "COUNTERS_URL" if environ.get("COUNTERS_URL") else "VALKEY_URL"),
        answers_url=_valkey(environ, "ANSWERS_URL" if environ.get("ANSWERS_URL") or production else "VALKEY_URL"),
        host=environ.get("GATEWAY_HOST") or "127.0.0.1",
        port=int(_number(environ, "GATEWAY_PORT", default=8787, low=0, high=65535)),
        processes=int(_number(environ, "GATEWAY_PROCESSES", default=1, low=1, high=256)),
        max_body_bytes=int(_number(environ, "MAX_BODY_BYTES", default=10_000_000, low=1024, high=1_000_000_000)),
        max_passed_bytes=int(_number(environ, "MAX_PASSED_BYTES", default=600_000_000, low=1024, high=1e11)),
        spool_max_bytes=int(_number(environ, "SPOOL_MAX_BYTES", default=8_000_000_000, low=4096, high=1e15)),
        capture_ack=_ack(environ.get("CAPTURE_ACK") or Ack.OS),
        tenant_in_flight=int(_number(environ, "TENANT_IN_FLIGHT", default=1024, low=1, high=100_000)),
        tenant_body_bytes=int(_number(environ, "TENANT_BODY_BYTES", default=268_435_456, low=65_536, high=1e12)),
        student_timeout=_number(environ, "STUDENT_TIMEOUT_S", default=3.0, low=0.01, high=60),
        teacher_timeout=_number(environ, "TEACHER_TIMEOUT_S", default=600.0, low=0.01, high=3600),
        failover_timeout=_number(environ, "FAILOVER_TIMEOUT_S", default=120.0, low=0.01, high=3600),
        call_log=_flag(environ, "CALL_LOG", default=False),
        allow_private=_flag(environ, "PROVIDER_ALLOW_PRIVATE", default=not production),
    )


def _bare_machine(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the other processes of a machine look where nothing is set: below STATE_DIR, under the demo's secret."""
    state = Path(environ.get("STATE_DIR") or ROOT / ".state").resolve()
    return {
        "SNAPSHOT_FILE": str(state / "snapshot.sealed"),
        "SPOOL_DIR": str(state / "spool"),
        "SECRET_KEY": DEMO_SECRET,
    }


def snapshot_key(secret: bytes) -> bytes:
    """The key that seals the snapshot file: the feed and the gateways derive the same one from SECRET_KEY."""
    return derive_key(secret, purpose="snapshot")


def _text(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise UnableToStart(f"{name} is not set")
    return value


def _valkey(environ: Mapping[str, str], name: str) -> str:
    url = environ.get(name, "")
    try:
        parts = urlsplit(url)
        sound = not url or (parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        sound = False
    if not sound:
        raise UnableToStart(f"{name} does not begin with redis:// or rediss:// and name a host")
    return url


def _ack(value: str) -> Ack:
    if value not in {*Ack}:
        raise UnableToStart(f"CAPTURE_ACK is none of {', '.join(Ack)}")
    return Ack(value)


def _flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = environ.get(name, "").lower()
    if value not in FLAGS:
        raise UnableToStart(f"{name} is neither 1 nor 0")
    return default if not value else FLAGS[value]


def _number(environ: Mapping[str, str], name: str, *, default: float, low: float, high: float) -> float:
    try:
        value = float(environ.get(name) or default)
    except ValueError as error:
        raise UnableToStart(f"{name} is not a number") from error
    if not low <= value <= high:
        raise UnableToStart(f"{name} is not between {low:g} and {high:g}")
    return value
