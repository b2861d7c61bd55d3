"""Reads a file of real queries and real teacher answers for a replay, and says plainly what is wrong with it."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

SYSTEM = "Answer the query in exactly the form of the earlier answers and with nothing else."
LARGEST_FILE = 2_000_000_000
FEWEST_ROWS = 60


class UnableToRead(Exception):
    """The file cannot be replayed; the message says why and what would help, and holds no row of it."""


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One query, as the messages of a call, and what the teacher answered."""

    messages: tuple[dict[str, Any], ...] = field(repr=False)
    answer: str = field(repr=False)


def read_rows(path: Path) -> list[ReplayRow]:
    """All usable rows of a CSV (`text,teacher_label`) or JSONL (`text` or `messages`, and `answer`), in file order.

    Rows without a text or an answer are passed over. Raises UnableToRead: no file, another encoding than UTF-8, missing
    columns, or fewer than 60 usable rows.
    """
    text = _decode(path)
    rows = list(_from_jsonl(text) if path.suffix.lower() in {".jsonl", ".ndjson"} else _from_csv(text))
    if len(rows) < FEWEST_ROWS:
        raise UnableToRead(f"{len(rows)} usable rows: at least {FEWEST_ROWS} are needed to learn from and to judge by")
    return rows


def request_body(row: ReplayRow, *, model: str) -> bytes:
    """The call's request as it would have come over the wire, in the OpenAI dialect."""
    return msgspec.json.encode({"model": model, "messages": list(row.messages)})


def response_body(row: ReplayRow, *, model: str, name: str, at: int) -> bytes:
    """The teacher's response as it would have come over the wire. Tokens are estimated at four characters each."""
    read = sum(len(str(message.get("content", ""))) for message in row.messages) // 4 + 4
    written = max(len(row.answer) // 4, 1)
    return msgspec.json.encode(
        {
            "id": f"chatcmpl-{name}",
            "object": "chat.completion",
            "created": at,
            "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": row.answer}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
        }
    )


def _decode(path: Path) -> str:
    if not path.is_file():
        raise UnableToRead("there is no such file")
    if path.stat().st_size > LARGEST_FILE:
        raise UnableToRead("the file is larger than 2 GB; replay a sample of it")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnableToRead(f"the file is not UTF-8 (byte {error.start}); convert it first") from error


def _from_csv(text: str) -> Iterator[ReplayRow]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = {"text", "teacher_label"} - set(reader.fieldnames or ())
    if missing:
        raise UnableToRead(f"the CSV has no column {' and no column '.join(sorted(missing))}")
    try:
        for fields in reader:
            yield from _row(_user(fields.get("text")), fields.get("teacher_label"))
    except csv.Error as error:
        raise UnableToRead(f"line {reader.line_num} is not CSV") from error


def _from_jsonl(text: str) -> Iterator[ReplayRow]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise UnableToRead(f"line {number} is not JSON") from error
        if not isinstance(fields, dict) or not {"text", "messages"} & set(fields) or "answer" not in fields:
            raise UnableToRead(f"line {number} needs `text` or `messages`, and `answer`")
        messages = fields["messages"] if "messages" in fields else _user(fields["text"])
        yield from _row(messages, _answer_text(fields["answer"]))


def _answer_text(answer: object) -> str | None:
    if isinstance(answer, dict):
        return msgspec.json.encode(answer).decode()
    return answer if isinstance(answer, str) else None


def _user(text: object) -> Sequence[dict[str, Any]]:
    if not isinstance(text, str) or not text.strip():
        return ()
    return ({"role": "system", "content": SYSTEM}, {"role": "user", "content": text})


def _row(messages: object, answer: str | None) -> Iterator[ReplayRow]:
    usable = isinstance(messages, list | tuple) and messages and all(isinstance(one, dict) for one in messages)
    if usable and isinstance(messages, list | tuple) and answer and answer.strip():
        yield ReplayRow(tuple(messages), answer.strip())
