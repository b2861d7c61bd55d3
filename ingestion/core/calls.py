"""What a call is, once its dialect is read: the words every app shares when it speaks of one.

An `Ask` is what the caller wants, an `Answer` what a model gave, a `CallRecord` what we remember. Nothing here knows
a wire format; `dialects` reads and writes those.
"""

from enum import StrEnum
from typing import Final

import msgspec


class Provider(StrEnum):
    """Whose API a credential is for: what stances and prices are kept by."""

    OPENAI = "openai"  # or anybody else who speaks its dialect
    ANTHROPIC = "anthropic"
    AZURE = "azure"  # OpenAI's models under paths and a credential header of their own


LONGEST_MODEL: Final = 120  # characters of a model's name: callers and providers may call it what they like


class Dialect(StrEnum):
    """The wire format a caller speaks."""

    OPENAI = "openai"  # chat completions
    RESPONSES = "responses"  # OpenAI's later one
    ANTHROPIC = "anthropic"

    @property
    def provider(self) -> str:
        """Who is asked where the path names nobody else."""
        return Provider.ANTHROPIC.value if self is Dialect.ANTHROPIC else Provider.OPENAI.value


class Kind(StrEnum):
    """What a workload's answers are, which decides how two of them are compared."""

    LABEL = "label"
    JSON = "json"
    TOOL_CALL = "tool_call"
    TEXT = "text"


class Arm(StrEnum):
    """Who answered, and why they were asked."""

    TEACHER = "teacher"  # no student in play, or the share said teacher
    STUDENT = "student"  # the gate accepted the student's answer
    FALLBACK = "fallback"  # the student was in play and a gate or a fault sent the call to the teacher
    CONTROL = "control"  # eligible for the student, given to the teacher at random: the unbiased sample


class Finish(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    REFUSAL = "refusal"
    OTHER = "other"


class Unshown(msgspec.Struct, frozen=True, gc=False):
    """What is made for each call, so it is cheap to make; and it holds people's words, so it shows none.

    Whatever derives from it is left alone by the garbage collector, which is inherited: a cycle through one stays.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class ToolCall(Unshown, frozen=True):
    """One function the model wants called; `arguments` is JSON text."""

    name: str
    arguments: str


class Tool(Unshown, frozen=True):
    """A function on offer; `schema` is its parameters' JSON Schema as canonical JSON text."""

    name: str
    schema: str


class Message(Unshown, frozen=True):
    """One turn. `text` joins the text parts; `has_media` says that something else (image, audio, file) was there."""

    role: str  # system, user, assistant, tool
    text: str
    has_media: bool = False
    tool_calls: tuple[ToolCall, ...] = ()


class Ask(Unshown, frozen=True, kw_only=True):
    """A call's request, read once. `raw` is what the teacher gets, byte for byte."""

    dialect: Dialect
    model: str
    messages: tuple[Message, ...]  # system prompts first, whatever the dialect keeps them in
    raw: bytes
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None  # auto, none, required, or a tool's name
    response_format: str | None = None  # canonical JSON of the asked-for format, None for plain text
    stream: bool = False
    # OpenAI's stream_options.include_usage; None: it says nothing of a stream's options
    include_usage: bool | None = None
    max_tokens: int | None = None
    n: int = 1
    logprobs: bool = False
    stateful: bool = False  # the provider is to keep the answer, or the call is tied to what it keeps
    tied: bool = False  # the question is not all in the body, or the call goes on after its answer
    stop: tuple[str, ...] = ()
    # OpenAI `user` or `safety_identifier`, Anthropic `metadata.user_id`
    subject: str | None = None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens as the provider counted them. `input_tokens` includes cached ones, in both dialects."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0


class Answer(Unshown, frozen=True):
    """A model's whole answer, also when it came as a stream. `usage` is None where the provider gave none."""

    text: str
    finish: Finish
    model: str
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None


class CallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the spool: the facts of a call, and its bodies already sealed with the tenant's data key.

    Times are seconds since the epoch (UTC) and milliseconds; ids are UUIDs as text. Bodies are sealed with the context
    strings of `body_context`. `request_sealed` is None where the tenant opted out of content.
    """

    id: str
    tenant_id: str
    key_id: str
    at: float
    dialect: str
    asked_model: str
    answered_model: str = ""
    provider: str = ""  # whose answer it is, or would have been; "" in older records: the dialect's own
    credential_id: str | None = None  # the tenant's key there, by whose terms a pair comes in
    failovers: int = 0  # destinations that were asked in vain before the one that answered
    fingerprint: str = ""
    workload_id: str | None = None
    arm: str = Arm.TEACHER
    reason: str = ""  # why this arm: a gate's name, a fault's name, "share", "accepted"
    adapter: str = ""
    score: float | None = None
    novelty: float | None = None
    wants_audit: bool = False  # student answered; the teacher is to be asked afterwards
    wants_shadow: bool = False  # teacher answered; the student is to be asked afterwards
    propensity: float = 1.0  # probability with which this arm was drawn
    status: int = 200
    finish: str = ""
    stream: bool = False
    complete: bool = True  # False: the caller left, or the upstream broke, before the last byte
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    usage_estimated: bool = False
    student_input_tokens: int = 0  # what the student read and wrote, also when its answer was not used
    student_output_tokens: int = 0
    student_ms: float = 0.0
    queue_ms: float = 0.0  # until who answered was asked: limits, a student's try, a place, destinations that failed
    first_byte_ms: float = 0.0
    total_ms: float = 0.0
    subject_hmac: str = ""
    request_sealed: bytes | None = None
    response_sealed: bytes | None = None


def body_context(call_id: str, tenant_id: str, column: str) -> str:
    """The associated data under which a call's body is sealed; `column` is 'request' or 'response'."""
    return f"{tenant_id}/ingestion_payload/{column}/{call_id}/1"
