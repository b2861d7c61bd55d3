"""What decides whether a student's answer may be used: the evidence, and the gate it is held against.

The same values travel from evaluation (where a gate is certified) to the snapshot (where it is applied), so that one
`accept()` serves both. msgspec structs, because they are sealed into the snapshot file.
"""

from enum import StrEnum

import msgspec

from ingestion.core.templates import Template as Template  # part of StudentSpec: found here by those who build one


class Rung(StrEnum):
    """Which student answers: a linear head in the encoder, or a LoRA in vLLM."""

    HEAD = "head"
    LORA = "lora"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one student answer besides the answer; every number is finite.

    `weakest`: a label's probability over the closed set, or the least sure value field's (JSON, tool call), in [0, 1].
    `typical`: the margin of the first label over the second, or the mean probability of value tokens, in [0, 1].
    `spread`: entropy over the labels in nats (0 where only one path was seen), >= 0.
    `similarity`: cosine similarity to the k-th nearest training row, in [-1, 1].
    `neighbour_agreement`: share of the k nearest training rows whose answer equals the student's, in [0, 1].
    `novelty`: conformal p-value of the query's distance against the tuning split's, in (0, 1]; small is novel.
    """

    weakest: float
    typical: float
    spread: float
    similarity: float
    neighbour_agreement: float
    novelty: float


class Acceptor(msgspec.Struct, frozen=True, kw_only=True):
    """A logistic regression on standardised features, fitted on the tuning split and frozen with the adapter."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """The frozen decision of one certified adapter: accept iff score >= threshold and novelty >= epsilon."""

    acceptor: Acceptor
    threshold: float
    novelty_epsilon: float = 0.01


class StudentSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that is needed to ask one adapter for an answer, identically in evaluation, shadow and live traffic.

    `prompt_prefix + query + prompt_suffix` is the exact text the LoRA was trained on; a query that contains any of
    `control_tokens` never reaches it. `labels` is the closed set (label kind); `answer_schema` the JSON Schema, as
    text, that decoding is constrained to (json and tool_call: for a tool call of `{"name", "arguments"}`).
    """

    adapter: str  # immutable versioned name
    rung: Rung
    kind: str
    template: Template
    labels: tuple[str, ...] = ()
    labels_display: dict[str, str] = {}  # canonical label → as the teacher writes it
    answer_schema: str = ""
    prompt_prefix: str = ""
    prompt_suffix: str = ""
    control_tokens: tuple[str, ...] = ()
    max_query_chars: int = 2000
    max_output_tokens: int = 64
    base_model: str = ""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A student's answer before any gate. `answer` is canonical (see ingestion.core.agreement); None if malformed."""

    answer: str | None
    evidence: Evidence
    input_tokens: int = 0
    output_tokens: int = 0
    ms: float = 0.0
