"""The gateway's door: raw ASGI, and no framework between a call and its answer."""

import asyncio
import logging
import sys
from dataclasses import dataclass
from functools import partial
from secrets import token_hex
from typing import Final

import aiohttp

from ingestion.core.calls import Dialect, Provider
from serving.core.deadline import Deadlines
from serving.core.paths import AZURE, is_odd, twin_of
from serving.counters import SharedCounters
from serving.gateway.answer import Gateway, answer_call
from serving.gateway.attempt import Students
from serving.gateway.call_log import CallLog
from serving.gateway.capture import Recorder
from serving.gateway.commit import Log, open_log
from serving.gateway.limits import Limits
from serving.gateway.memory import Memory
from serving.gateway.messages import send_whole
from serving.gateway.metrics import Metrics
from serving.gateway.once import HEADER, answer_once
from serving.gateway.pass_through import may_pass, pass_through
from serving.gateway.pool import PooledUpstream
from serving.gateway.refusals import Refused, loop, no_such_path, no_upgrade, our_fault
from serving.gateway.settings import Settings
from serving.gateway.siblings import Siblings
from serving.gateway.slot import Slot
from serving.gateway.snapshot_file import SnapshotFile
from serving.gateway.teachers import Teachers
from serving.gateway.upstream import VIA
from serving.gateway.wire import Gone, Receive, Request, Scope, Send
from serving.kept_answers import KeptAnswers

CALLS: Final = {
    b"/v1/chat/completions": Dialect.OPENAI,
    b"/v1/responses": Dialect.RESPONSES,
    b"/v1/messages": Dialect.ANTHROPIC,
}
CALLS_A_PLACE: Final = 4  # of a tenant under way, for each place on one of its lanes: some wait, some have others
AZURE_CALLS: Final = {path: dialect for path, dialect in CALLS.items() if dialect is not Dialect.ANTHROPIC}
SHARED_SECONDS = 0.5  # for one step at what is shared; calls that wait for theirs go on alone once one takes longer
NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)  # a draft has one deadline for all it does, set where it is made

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """What lives as long as the process serves."""

    gateway: Gateway
    log: Log
    tasks: tuple[asyncio.Task[None], ...]
    siblings: Siblings | None
    counters: SharedCounters | None
    answers: KeptAnswers | None
    lines: CallLog | None

    def metrics(self) -> bytes:
        """The numbers of this process, or of all of them."""
        return self.siblings.render() if self.siblings else self.gateway.metrics.render()

    async def stop(self) -> None:
        """Let go of connections. Every answered call is in the log already, which then writes what it still holds."""
        for task in self.tasks:
            task.cancel()
        await self.gateway.teachers.close()
        await self.gateway.students.http.close()
        await self.gateway.limits.close()
        for closing in (self.counters, self.answers, self.lines):
            if closing:
                await closing.close()
        await self.log.close()
        if self.siblings:
            self.siblings.publish()


class App:
    """One gateway process as an ASGI application."""

    def __init__(self, settings: Settings, *, slot: Slot | None = None) -> None:
        self._settings = settings
        self._slot = slot
        self._running: Running | None = None

    @property
    def is_ready(self) -> bool:
        """Whether calls can be answered: it runs, and there is a snapshot."""
        return self._running is not None and self._running.gateway.snapshots.current() is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's worth: an HTTP request, or the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and self._running is not None:
            await _serve(scope, receive, send, self._running)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._running = start(self._settings, slot=self._slot)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._running.stop()
        await send({"type": "lifespan.shutdown.complete"})


def start(settings: Settings, *, slot: Slot | None = None) -> Running:
    """Open what a gateway needs; it serves (with 503s) also before there is a snapshot. Needs a running loop."""
    snapshots = SnapshotFile(settings.snapshot_file, key=settings.snapshot_key)
    snapshots.refresh()
    counters = _counters(settings)
    lines = CallLog(sys.stdout.fileno()) if settings.call_log else None
    metrics = Metrics(snapshot=partial(_snapshot_figures, snapshots), lines=lines)
    log = open_log(settings.spool_dir, settings.capture_ack, max_bytes=settings.spool_max_bytes, metrics=metrics)
    gateway = Gateway(
        snapshots=snapshots,
        teachers=_teachers(settings, metrics),
        students=Students(
            http=aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), timeout=NO_TIMEOUT
            ),
            deadlines=Deadlines(settings.student_timeout),
        ),
        recorder=Recorder(log, metrics=metrics, lines=lines, settled=log.settled),
        limits=Limits(counters, metrics=metrics),
        metrics=metrics,
        memory=Memory(settings.tenant_body_bytes, most_calls=CALLS_A_PLACE * settings.tenant_in_flight),
        max_body_bytes=settings.max_body_bytes,
        max_passed_bytes=settings.max_passed_bytes,
    )
    siblings = Siblings(slot.directory, slot.number, render=metrics.render) if slot else None
    watches = [snapshots.watch(), gateway.limits.tend(), *([siblings.watch()] if siblings else [])]
    tasks = tuple(asyncio.get_running_loop().create_task(watch) for watch in watches)
    answers = KeptAnswers(settings.answers_url, patience=SHARED_SECONDS) if settings.answers_url else None
    return Running(gateway, log, tasks, siblings=siblings, counters=counters, answers=answers, lines=lines)


def _counters(settings: Settings) -> SharedCounters | None:
    if not settings.counters_url:
        return None
    return SharedCounters(settings.counters_url, process=token_hex(8), patience=SHARED_SECONDS)


def _teachers(settings: Settings, metrics: Metrics) -> Teachers:
    upstream = PooledUpstream(timeout=settings.teacher_timeout, allow_private=settings.allow_private, metrics=metrics)
    silence = settings.failover_timeout
    return Teachers(upstream, most=settings.tenant_in_flight, metrics=metrics, silence_before_next=silence)


def _snapshot_figures(snapshots: SnapshotFile) -> tuple[int, int]:
    snapshot = snapshots.current()
    return (snapshot.version if snapshot else 0), snapshots.failures


async def _serve(scope: Scope, receive: Receive, send: Send, running: Running) -> None:
    """Answer one request; what is refused is rendered here, in the caller's dialect."""
    raw_path: bytes = scope["raw_path"]
    if scope["method"] == "GET" and raw_path in PLAIN:
        await PLAIN[raw_path](send, running)
        return
    gateway = running.gateway
    query: bytes = scope["query_string"]
    fields = dict(scope["headers"])
    azure = raw_path.startswith(AZURE)
    path, path_model = twin_of(raw_path) if azure else (raw_path, "")
    dialect = _spoken_dialect(path, fields, azure=azure)
    request = Request(
        dialect=dialect,
        target=(raw_path + b"?" + query if query else raw_path).decode("latin-1"),
        headers=scope["headers"],
        fields=fields,
        receive=receive,
        send=send,
        watch=scope["extensions"]["departure"],
        path=path,
        provider=Provider.AZURE if azure else dialect.provider,
        path_model=path_model,
    )
    gateway.metrics.in_flight += 1
    try:
        await _dispatch(scope["method"], raw_path, request, gateway, running.answers)
    except Gone:
        gateway.metrics.departed += 1
    except Refused as refused:
        await _refuse(refused, request, gateway)
    except Exception as error:  # noqa: BLE001  the process edge: one call's bug must not reach another, nor a log its words
        logger.error("a call broke the gateway: %s", type(error).__name__)
        await _refuse(our_fault(), request, gateway)
    finally:
        gateway.metrics.in_flight -= 1


async def _dispatch(
    method: str, raw_path: bytes, request: Request, gateway: Gateway, answers: KeptAnswers | None
) -> None:
    if b"upgrade" in request.fields:
        raise no_upgrade()
    if b"via" in request.fields and _came_from_here(request):
        raise loop()
    if method == "POST" and request.path in CALLS and _is_answered_here(request, raw_path):
        if answers is not None and HEADER in request.fields:
            await answer_once(request, gateway, answers)
        else:
            await answer_call(request, gateway)
    elif may_pass(method, raw_path, answered_here=CALLS):
        await pass_through(request, method, gateway)
    else:
        raise no_such_path()


def _is_answered_here(request: Request, raw_path: bytes) -> bool:
    """Whether a path of Azure's stands for the call that its twin is. A deployment answers chat completions."""
    if request.provider != Provider.AZURE:
        return True
    is_plain = request.path in AZURE_CALLS and not is_odd(raw_path)
    return is_plain and (not request.path_model or request.dialect is Dialect.OPENAI)


def _came_from_here(request: Request) -> bool:
    passed = (member for name, value in request.headers if name == b"via" for member in value.split(b","))
    return any(member.strip() == VIA for member in passed)


async def _refuse(refused: Refused, request: Request, gateway: Gateway) -> None:
    gateway.metrics.count_refusal(dialect=request.dialect, status=refused.status)
    body = refused.body(request.dialect)
    await send_whole(request.send, status=refused.status, headers=refused.headers(), body=body)


async def _answer_health(send: Send, running: Running) -> None:
    """The process answers."""
    await send_whole(send, status=200, headers=PLAIN_TEXT, body=b"ok\n")


async def _answer_readiness(send: Send, running: Running) -> None:
    """It can answer calls: there is a snapshot."""
    ready = running.gateway.snapshots.current() is not None
    body = b"ready\n" if ready else b"no snapshot yet\n"
    await send_whole(send, status=200 if ready else 503, headers=PLAIN_TEXT, body=body)


async def _answer_metrics(send: Send, running: Running) -> None:
    kind = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
    await send_whole(send, status=200, headers=kind, body=running.metrics())


PLAIN_TEXT: Final = [(b"content-type", b"text/plain; charset=utf-8")]
PLAIN: Final = {b"/healthz": _answer_health, b"/readyz": _answer_readiness, b"/metrics": _answer_metrics}


def _spoken_dialect(path: bytes, headers: dict[bytes, bytes], *, azure: bool) -> Dialect:
    """The path's, or that of the headers where it does not tell; on a path of Azure's they tell nothing."""
    if azure:
        return AZURE_CALLS.get(path, Dialect.OPENAI)
    if path in CALLS:
        return CALLS[path]
    return Dialect.ANTHROPIC if b"anthropic-version" in headers else Dialect.OPENAI
