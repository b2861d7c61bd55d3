"""The cast of the gateway's tests: one tenant in force, one suspended, their keys, and the stage they act on."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import aiohttp
import anthropic
import msgspec
import openai
from yarl import URL

from ingestion.core.calls import CallRecord, Dialect, Kind, Provider, body_context
from ingestion.core.dialects import parse_ask
from ingestion.core.fingerprint import fingerprint
from ingestion.core.rating import Rates
from ingestion.core.templates import Template
from ingestion.spool import SpoolReader
from serving.core.confidence import FEATURES
from serving.core.gates import Acceptor, Gate, Rung, StudentSpec
from serving.core.limits import LimitEntry
from serving.core.snapshot import KeyEntry, ProviderEntry, RouteEntry, Snapshot, TenantEntry
from serving.gateway.app import App
from serving.gateway.server import server_config
from serving.gateway.settings import Settings, snapshot_key
from serving.gateway.snapshot_file import write_snapshot
from tenants.core.keys import mint_key
from tenants.core.sealing import open_sealed
from tests.fakes.encoder import Encoder
from tests.fakes.replica import Replica
from tests.fakes.serve import Served, free_port, wait_for
from tests.fakes.teacher import Teacher

SECRET = b"a secret of this test run, long enough"
TENANT = "0197a000-0000-7000-8000-000000000001"
SUSPENDED = "0197a000-0000-7000-8000-000000000002"
RIVAL_TENANT = "0197a000-0000-7000-8000-000000000003"
WORKLOAD = "0197a000-0000-7000-8000-0000000000aa"
DATA_KEY, SUBJECT_KEY = b"d" * 32, b"s" * 32
SYSTEM = "You route customer messages. Answer with one label only."
OWNER, PLAIN, STRANGER, IDLE, RIVAL = (mint_key(bytes([letter]) * 32) for letter in b"opsir")
RATES = {
    "openai/gpt-4o": Rates(*map(Decimal, ("2.5", "10", "1.25", "2.5")), currency="USD"),
    "anthropic/claude-sonnet-5-5": Rates(*map(Decimal, ("3", "15", "0.3", "3.75")), currency="USD"),
}
LABELS = ("track_shipment", "Claim_Damage", "other")


def zeros() -> tuple[float, ...]:
    return (0.0,) * len(FEATURES)


def gate(*, threshold: float = 0.5) -> Gate:
    """A gate whose score is 0.99 for everything."""
    acceptor = Acceptor(mean=zeros(), scale=(1.0,) * len(FEATURES), weights=zeros(), bias=4.6)
    return Gate(acceptor=acceptor, threshold=threshold)


def student(*, rung: Rung = Rung.HEAD, kind: Kind = Kind.LABEL, schema: str = "") -> StudentSpec:
    return StudentSpec(
        adapter=f"routing-{rung}-7",
        rung=rung,
        kind=kind,
        template=Template(system=SYSTEM),
        labels=LABELS if kind is Kind.LABEL else (),
        labels_display={label.casefold(): label for label in LABELS} if kind is Kind.LABEL else {},
        answer_schema=schema,
        prompt_prefix="<|im_start|>user\nrouting\n",
        prompt_suffix="<|im_end|>\n<|im_start|>assistant\n",
        control_tokens=("<|im_start|>", "<|im_end|>"),
    )


def openai_ask(model: str = "gpt-4o", query: str = "Where is my parcel 4711?", **more) -> dict:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": query}]
    return {"model": model, "messages": messages, **more}


def anthropic_ask(model: str = "claude-sonnet-5-5", query: str = "Where is my parcel 4711?", **more) -> dict:
    return {
        "model": model,
        "max_tokens": 50,
        "system": SYSTEM,
        "messages": [{"role": "user", "content": query}],
        **more,
    }


def mark(ask: dict, dialect: Dialect = Dialect.OPENAI) -> str:
    return fingerprint(parse_ask(dialect, json.dumps(ask).encode()))


@dataclass
class Stage:
    """Everything around one gateway. `publish` writes a snapshot as the feed would."""

    directory: Path
    teacher: Teacher = field(default_factory=Teacher)
    encoder: Encoder = field(default_factory=Encoder)
    replica: Replica = field(default_factory=Replica)
    urls: dict[str, str] = field(default_factory=dict)
    url: str = ""
    version: int = 0
    routes: dict[str, RouteEntry] = field(default_factory=dict)
    limits: tuple[LimitEntry, ...] = ()
    models: dict[str, tuple[ProviderEntry, ...]] = field(default_factory=dict)
    ask_usage: bool = False
    rates: dict[str, Rates] = field(default_factory=lambda: dict(RATES))

    @property
    def spool_dir(self) -> Path:
        return self.directory / "spool"

    def settings(self, **changes) -> Settings:
        fixed = {
            "snapshot_file": self.directory / "snapshot.sealed",
            "spool_dir": self.spool_dir,
            "snapshot_key": snapshot_key(SECRET),
            "port": 0,
            "student_timeout": 0.5,
            "teacher_timeout": 5.0,
            "allow_private": True,
        }
        return Settings(**(fixed | changes))

    def environ(self, port: int, **more: str) -> dict[str, str]:
        """What a gateway in a process of its own is started with."""
        return {
            **os.environ,
            "TMPDIR": str(self.directory),  # where a supervisor that is killed leaves a folder
            "SNAPSHOT_FILE": str(self.directory / "snapshot.sealed"),
            "SPOOL_DIR": str(self.spool_dir),
            "SECRET_KEY": SECRET.decode(),
            "GATEWAY_PORT": str(port),
            **more,
        }

    def publish(self, *, without: str = "", log_content: bool = True) -> None:
        self.version += 1
        keys = {
            OWNER.digest: KeyEntry(tenant_id=TENANT, key_id="key-owner", may_override=True),
            PLAIN.digest: KeyEntry(tenant_id=TENANT, key_id="key-plain"),
            IDLE.digest: KeyEntry(tenant_id=SUSPENDED, key_id="key-idle"),
            RIVAL.digest: KeyEntry(tenant_id=RIVAL_TENANT, key_id="key-rival"),
        }
        keys.pop(without, None)
        url = self.urls["teacher"]
        tenant = TenantEntry(
            active=True,
            data_key=DATA_KEY,
            subject_key=SUBJECT_KEY,
            salt="salt-of-one",
            log_content=log_content,
            providers={
                name: (ProviderEntry(base_url=url, credential=f"teacher-{name}", provider=name),) for name in Provider
            },
            models=self.models,
            ask_usage=self.ask_usage,
            routes=self.routes,
            limits=self.limits,
        )
        snapshot = Snapshot(
            version=self.version,
            made_at=1.0,
            keys=keys,
            tenants={
                TENANT: tenant,
                SUSPENDED: msgspec.structs.replace(tenant, active=False),
                RIVAL_TENANT: msgspec.structs.replace(tenant, data_key=b"r" * 32),
            },
            vllm_urls=(self.urls["replica"],),
            encoder_urls=(self.urls["encoder"],),
            rates=self.rates,
        )
        write_snapshot(self.directory / "snapshot.sealed", snapshot, key=snapshot_key(SECRET))

    def cast_student(self, spec: StudentSpec, *asks: tuple[dict, Dialect], threshold: float = 0.5, **changes) -> None:
        """Give the workload of these asks to the student, wholly, and let the gateway know."""
        entry = RouteEntry(
            workload_id=WORKLOAD,
            kind=spec.kind,
            state="full",
            student_share=1.0,
            audit_share=1.0,
            student=spec,
            gate=gate(threshold=threshold),
        )
        self.routes = {mark(ask, dialect): msgspec.structs.replace(entry, **changes) for ask, dialect in asks}
        self.publish()

    def records(self, count: int, *, directory: Path | None = None) -> list[CallRecord]:
        """The spool's records once there are `count`, and no more than that."""
        where = directory or self.spool_dir
        found = wait_for(lambda: len(read := read_spool(where)) >= count and read) if count else read_spool(where)
        assert len(found) == count
        return found

    def record(self) -> CallRecord:
        """The only record."""
        return self.records(1)[0]


def read_spool(directory: Path) -> list[CallRecord]:
    with SpoolReader(directory) as reader:
        return list(reader.read(limit=100_000).records)


def opened(record: CallRecord, column: str) -> bytes:
    sealed = record.request_sealed if column == "request" else record.response_sealed
    return open_sealed(DATA_KEY, sealed, context=body_context(record.id, record.tenant_id, column))


def serve_gateway(stage: Stage, **changes) -> Served:
    settings = stage.settings(**changes)
    return Served(server_config(settings, App(settings)))


@dataclass(frozen=True)
class Got:
    """An HTTP answer, read whole, as it came over the wire."""

    status: int
    body: bytes
    headers: Mapping[str, str]


async def post(url: str, *, key: str = PLAIN.plain, path: str = "/v1/chat/completions", headers=(), **request) -> Got:
    """POST with no SDK in between; `key` goes as a bearer token, unless empty."""
    sent = {**({"authorization": f"Bearer {key}"} if key else {}), **dict(headers)}
    async with aiohttp.ClientSession(auto_decompress=False, max_field_size=65_536) as http:
        answer = await http.post(URL(f"{url}{path}", encoded=True), headers=sent, **request)
        return Got(answer.status, await answer.read(), answer.headers)


async def get(url: str, *, headers=()) -> Got:
    async with aiohttp.ClientSession() as http:
        answer = await http.get(url, headers=dict(headers))
        return Got(answer.status, await answer.read(), answer.headers)


def talk_to(url: str, *, key: str = PLAIN.plain) -> openai.OpenAI:
    """The official SDK, which would hide a failure by retrying."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def claude_at(url: str, *, key: str = PLAIN.plain) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)


def down() -> str:
    return f"http://127.0.0.1:{free_port()}"
