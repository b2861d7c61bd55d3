"""The sealed picture of the world a gateway answers from: keys, tenants, routes, gates, replicas.

The feed makes it from PostgreSQL and seals it to a file; gateways read the file and nothing else. Lookups are by full
SHA-256 of the key. Half a snapshot is worse than an old one: `decode` validates types and refuses an empty one.
"""

import msgspec

from ingestion.core.calls import Provider
from ingestion.core.rating import Rates
from serving.core.gates import Gate, StudentSpec
from serving.core.limits import LimitEntry


class UnableToReadSnapshot(Exception):
    """The bytes are not a snapshot, or one with no tenants in it."""


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A live API key. `may_override`: the key may force an arm or switch the log off by request header."""

    tenant_id: str
    key_id: str
    may_override: bool = False


class ProviderEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Where calls go, under what credential and the model's name there; never chosen by the caller."""

    base_url: str  # without the /v1
    credential: str
    provider: str = Provider.OPENAI
    id: str = ""  # of the credential
    model: str = ""  # "": as the caller says
    usual: bool = True  # the credential that calls go under where no route says more
    teacher: str = ""  # who answers there, where that is not the provider itself under its own address


class RouteEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A workload's rollout as the gateway needs it. Shares are probabilities in [0, 1].

    `state` is shadow, canary, ramping, full, held or rolled_back. In shadow `student_share` is 0. `control_share`
    is taken first, then `student_share` of the rest. `audit_share` of student answers are marked for the teacher;
    `shadow_share` of eligible teacher answers (control ones always) are marked for the student. 99 of 100 answers
    take `usual_output` tokens at most; 0 where that is not known. The content of `log_share` of the calls is kept.
    """

    workload_id: str
    kind: str
    state: str = ""
    student_share: float = 0.0
    control_share: float = 0.0
    audit_share: float = 0.0
    shadow_share: float = 0.0
    usual_output: int = 0
    log_share: float = 1.0
    student: StudentSpec | None = None
    gate: Gate | None = None


class TenantEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant in force. `data_key` seals bodies, `subject_key` hashes subjects, `salt` separates prefix caches."""

    active: bool
    data_key: bytes
    subject_key: bytes
    salt: str
    log_content: bool = True
    ask_usage: bool = False
    providers: dict[str, tuple[ProviderEntry, ...]] = {}  # by the provider that a path is for; the first is asked first
    models: dict[str, tuple[ProviderEntry, ...]] = {}  # by that provider/the asked-for model, where it has a route
    routes: dict[str, RouteEntry] = {}  # by fingerprint
    limits: tuple[LimitEntry, ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a gateway knows. `version` grows; `made_at` is seconds since the epoch (UTC)."""

    version: int
    made_at: float
    keys: dict[str, KeyEntry]  # by SHA-256 hex of the full key
    tenants: dict[str, TenantEntry]
    vllm_urls: tuple[str, ...] = ()
    encoder_urls: tuple[str, ...] = ()
    rates: dict[str, Rates] = {}  # by provider/model, what a million tokens cost now, in US dollars


def encode(snapshot: Snapshot) -> bytes:
    """The snapshot as msgpack."""
    return msgspec.msgpack.encode(snapshot)


def decode(data: bytes) -> Snapshot:
    """Read what `encode` wrote. Raises UnableToReadSnapshot on anything else, and on an empty tenant table."""
    try:
        snapshot = msgspec.msgpack.decode(data, type=Snapshot)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise UnableToReadSnapshot("not a snapshot") from error
    if not snapshot.tenants:
        raise UnableToReadSnapshot("a snapshot without tenants")
    return snapshot
