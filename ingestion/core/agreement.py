"""Why two answers are the same answer: the one definition that training, certifying and auditing all hold to.

An answer is first made canonical for its workload's kind; canonical answers are then compared with a loss in [0, 1].
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from math import isclose
from typing import Any
from unicodedata import normalize

import orjson

from ingestion.core.answer_schema import infer_schema
from ingestion.core.calls import Answer, Finish, Kind, ToolCall, Usage
from ingestion.core.reading import UnableToParse, canonical_json

_FENCE = "```"
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}.*)?")
_QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb"
_UNUSABLE = (Finish.LENGTH, Finish.REFUSAL)
_MOSTLY = 0.9
_MAX_LABEL_CHARS = 80


def canonical(kind: Kind, answer: Answer) -> str | None:
    """The answer in the one form that is compared, stored and learnt; None if it isn't a whole answer of the kind.

    label: NFKC, casefolded, one space for many, without outer quotes and full stops, 80 characters at most. json:
    canonical JSON of the object that the text is, or has in a code fence. tool_call: canonical JSON of {"arguments",
    "name"} of the only call. text: without outer whitespace. A truncated or refused answer is of no kind.
    """
    if answer.finish in _UNUSABLE:
        return None
    if kind is Kind.TOOL_CALL:
        return _canonical_tool_call(answer)
    if answer.tool_calls:
        return None
    if kind is Kind.JSON:
        return _canonical_object(answer.text)
    if kind is Kind.LABEL:
        label = normal_form(answer.text)
        return label if 0 < len(label) <= _MAX_LABEL_CHARS else None
    return answer.text.strip() or None


def normal_form(text: str) -> str:
    """The text as a label: NFKC, casefolded, whitespace collapsed, outer quotes and final full stops gone."""
    previous = None
    while text != previous:  # casefolding can undo NFKC, and what is peeled off can change what folds; it settles soon
        previous = text
        text = " ".join(normalize("NFKC", normalize("NFKC", text).casefold()).split())
        text = text.lstrip(_QUOTES + " ").rstrip(_QUOTES + ". ")
    return text


def loss(kind: Kind, mine: str | None, teacher: str) -> float:
    """How far a canonical answer is from the teacher's, in [0, 1]; 1.0 for None.

    label and text: 0 or 1. json and tool_call: the share of fields that differ, where numbers compare by value, ISO
    dates by date, strings by normal form, arrays of objects as multisets. Another tool than the teacher's is 1.0.
    """
    if mine is None:
        return 1.0
    if mine == teacher:
        return 0.0
    if kind is Kind.TEXT:
        return 1.0
    if kind is Kind.LABEL:
        return float(normal_form(mine) != normal_form(teacher))
    ours, theirs = _load_object(mine), _load_object(teacher)
    if ours is None or theirs is None or (kind is Kind.TOOL_CALL and ours.get("name") != theirs.get("name")):
        return 1.0
    differing, fields = _compare(ours, theirs)
    return differing / fields


def differs(kind: Kind, mine: str | None, teacher: str) -> bool:
    """Whether the two disagree at all: what a certificate counts."""
    return loss(kind, mine, teacher) > 0


def infer_kind(answers: Sequence[Answer]) -> Kind:
    """What most of a workload's answers are: tool calls, JSON objects, labels that repeat, else text."""
    usable = [answer for answer in answers if answer.finish not in _UNUSABLE]
    if not usable:
        return Kind.TEXT
    for kind in (Kind.TOOL_CALL, Kind.JSON):
        if _share([canonical(kind, answer) is not None for answer in usable]) >= _MOSTLY:
            return kind
    short = [label for answer in usable if (label := canonical(Kind.LABEL, answer))]
    repeats = len(set(short)) * 2 <= len(short)
    return Kind.LABEL if repeats and len(short) >= _MOSTLY * len(usable) else Kind.TEXT


def answer_schema(kind: Kind, canonicals: Sequence[str]) -> str:
    """A JSON Schema, as text, of the observed canonical answers; "" for label and text, and where there are none."""
    values = [value for text in canonicals if (value := _load_object(text)) is not None]
    if kind not in (Kind.JSON, Kind.TOOL_CALL) or not values:
        return ""
    if kind is Kind.JSON:
        return canonical_json(infer_schema(values))
    by_name: dict[str, list[Any]] = {}
    for value in values:
        by_name.setdefault(str(value.get("name")), []).append(value)
    schemas = [_tool_call_schema(name, by_name[name]) for name in sorted(by_name)]
    return canonical_json(schemas[0] if len(schemas) == 1 else {"anyOf": schemas})


def to_answer(
    kind: Kind, canonical: str, *, model: str, usage: Usage | None, labels_display: Mapping[str, str] | None = None
) -> Answer:
    """A canonical answer as the answer a caller gets; `labels_display` says how callers know a canonical label."""
    value = _load_object(canonical) if kind is Kind.TOOL_CALL else None
    if value is not None:
        call = ToolCall(name=str(value.get("name")), arguments=canonical_json(value.get("arguments")))
        return Answer(text="", finish=Finish.TOOL_CALLS, model=model, tool_calls=(call,), usage=usage)
    text = (labels_display or {}).get(canonical, canonical) if kind is Kind.LABEL else canonical
    return Answer(text=text, finish=Finish.STOP, model=model, usage=usage)


def _canonical_tool_call(answer: Answer) -> str | None:
    if len(answer.tool_calls) != 1:
        return None
    (call,) = answer.tool_calls
    arguments = _load_object(call.arguments or "{}")
    return None if arguments is None else _write_object({"name": call.name, "arguments": arguments})


def _canonical_object(text: str) -> str | None:
    value = _load_object(text)
    if value is None:
        value = _load_object(_fenced(text))
    return None if value is None else _write_object(value)


def _fenced(text: str) -> str:
    """What stands in the first code fence; plain searches, since a pattern for it takes cubic time on hostile text."""
    _, _, after = text.partition(_FENCE)
    _, _, inside = after.partition("\n")
    body, fence, _ = inside.partition(_FENCE)
    return body.strip() if fence else ""


def _load_object(text: str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _write_object(value: dict[str, Any]) -> str | None:
    try:
        return canonical_json(value)
    except UnableToParse:
        return None


def _compare(mine: object, teacher: object) -> tuple[int, int]:
    """(fields that differ, fields in all); an empty object or array counts as one field."""
    if isinstance(mine, dict) and isinstance(teacher, dict) and (mine or teacher):
        pairs = [(mine.get(key, _ABSENT), teacher.get(key, _ABSENT)) for key in mine.keys() | teacher.keys()]
        return _total(_compare(*pair) for pair in pairs)
    if isinstance(mine, list) and isinstance(teacher, list) and (mine or teacher):
        return _compare_lists(mine, teacher)
    if isinstance(mine, dict | list) or isinstance(teacher, dict | list):
        fields = max(_fields(mine), _fields(teacher))
        return (0 if mine == teacher else fields), fields
    return int(not _same_leaf(mine, teacher)), 1


def _compare_lists(mine: list[Any], teacher: list[Any]) -> tuple[int, int]:
    """Objects as multisets: equal ones pair up first, the rest in order. Anything else place by place."""
    if all(isinstance(item, dict) for item in (*mine, *teacher)):
        mine, teacher, matched = _without_equals(mine, teacher)
    else:
        matched = 0
    longest = max(len(mine), len(teacher))
    padded = [items + [_ABSENT] * (longest - len(items)) for items in (mine, teacher)]
    differing, fields = _total(_compare(*pair) for pair in zip(*padded, strict=True))
    return differing, fields + matched


def _without_equals(mine: list[Any], teacher: list[Any]) -> tuple[list[Any], list[Any], int]:
    """What is left of both once equal objects are taken out, and how many fields those had."""
    rest, unmatched, matched = list(teacher), [], 0
    for item in mine:
        twin = next((index for index, other in enumerate(rest) if _compare(item, other)[0] == 0), None)
        if twin is None:
            unmatched.append(item)
        else:
            matched += max(_fields(item), _fields(rest.pop(twin)))
    return unmatched, rest, matched


_ABSENT = object()  # where the other side has a field and this one has not


def _fields(value: object) -> int:
    if isinstance(value, dict):
        return sum(map(_fields, value.values())) or 1
    if isinstance(value, list):
        return sum(map(_fields, value)) or 1
    return 1


def _total(parts: Iterable[tuple[int, int]]) -> tuple[int, int]:
    differing, fields = 0, 0
    for part_differing, part_fields in parts:
        differing, fields = differing + part_differing, fields + part_fields
    return differing, fields


def _same_leaf(mine: object, teacher: object) -> bool:
    if isinstance(mine, bool) or isinstance(teacher, bool):
        return mine is teacher
    if isinstance(mine, int | float) and isinstance(teacher, int | float):
        return isclose(mine, teacher, rel_tol=1e-9)
    if isinstance(mine, str) and isinstance(teacher, str):
        return _same_date(mine, teacher) or normal_form(mine) == normal_form(teacher)
    return mine is teacher


def _same_date(mine: str, teacher: str) -> bool:
    """Two times must be the same moment; a date and a time only the same day."""
    if not (_ISO_DATE.fullmatch(mine) and _ISO_DATE.fullmatch(teacher)):
        return False
    try:
        if len(mine) == 10 or len(teacher) == 10:
            return date.fromisoformat(mine[:10]) == date.fromisoformat(teacher[:10])
        return datetime.fromisoformat(mine) == datetime.fromisoformat(teacher)
    except ValueError:
        return False


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _tool_call_schema(name: str, values: list[Any]) -> dict[str, Any]:
    schema = infer_schema(values)
    schema["properties"]["name"] = {"enum": [name]}
    return schema
