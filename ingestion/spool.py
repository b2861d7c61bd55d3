"""What stands between an answered call and the database: an append-only log on the local disk, one file a writer.

A gateway appends a record before the last bytes of an answer leave; the feed reads, stores, and then deletes. Each
segment is a row of frames: length (4 bytes), CRC-32 of the payload (4 bytes), payload (a msgpack CallRecord).

What an acknowledgement means. `ack="os"`: write(2) has returned, so the record survives the death of this process,
also by kill -9, but not a power cut. `ack="disk"`: fdatasync(2) has returned too, once a record. What the gateway
acknowledges, and how it writes and syncs many records together, is in `serving/gateway/commit.py`.

A live segment is one whose writer holds its flock; the kernel drops the lock when the writer ends, however it ends.
Readers delete only segments that nobody locks and whose every record was committed.
"""

import fcntl
import os
import struct
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Literal, Self
from zlib import crc32

import msgspec

from ingestion.core.calls import CallRecord

_HEAD: Final = struct.Struct("<II")
_SUFFIX: Final = ".spool"
_CURSOR: Final = "cursor.msgpack"
_MAX_RECORD_BYTES: Final = 64 * 2**20  # a longer length in a frame is damage, not a record
_BATCH_BYTES: Final = 16 * 2**20  # a batch ends here too, so that large bodies cannot fill the reader's memory


class UnableToRecord(Exception):
    """The record is not in the log: the disk is full or broken, or the bound is reached."""


class UnableToRead(Exception):
    """Another reader holds the directory."""


class Spool:
    """The writing side: one per process, made after any fork. Not thread-safe: one event loop appends."""

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int,
        max_bytes: int,
        ack: Literal["os", "disk"] = "os",
        write: Callable[[int, bytes], int] = os.write,
        let_go: Callable[[int], None] = os.close,
    ) -> None:
        """Make the directory and the first segment, so that a gateway that cannot record fails at start.

        `max_bytes` bounds all segments in the directory together. Each writer counts what it adds itself and looks at
        the others' once a segment, so that N writers can pass the bound by N segments at most. `write` is os.write.
        `let_go` is given the descriptor of each segment that is left, and closes it, at once or later.
        """
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._sync = ack == "disk"
        self._write = write
        self._let_go = let_go
        self._encoder = msgspec.msgpack.Encoder()
        self.started = 0  # segments
        self.fd: int | None = None  # of the current one
        self._size = 0
        self._room = 0
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._start_segment()

    def append(self, record: CallRecord) -> None:
        """Write one record, whole or not at all. Raises UnableToRecord; the next append tries afresh."""
        frame = self.frame(record)
        self._put(self._make_way(len(frame)), frame)

    def frame(self, record: CallRecord) -> bytes:
        """The record as it stands in a segment. Raises UnableToRecord where it is too large for any reader."""
        payload = self._encoder.encode(record)
        if len(payload) > _MAX_RECORD_BYTES:
            raise UnableToRecord("the record is larger than any reader accepts")
        return _HEAD.pack(len(payload), crc32(payload)) + payload

    def append_frames(self, frames: Sequence[bytes]) -> int:
        """Write frames, made by `frame`, with one write(2). Gives how many of them are in the log: all, or so many of
        the first ones. Those are never taken back, since a reader may have seen them.
        """
        data = b"".join(frames)
        try:
            fd = self._make_way(len(data))
            written = self._write(fd, data)
        except (UnableToRecord, OSError):
            written = 0
        ends = list(accumulate(map(len, frames)))
        taken = bisect_right(ends, written)
        whole = ends[taken - 1] if taken else 0
        self._size += whole
        self._room -= whole
        if whole != len(data) and self.fd is not None:
            self._take_back(self.fd)
        return taken

    def close(self) -> None:
        """Let go of the current segment, which readers may then delete; a later append would start another."""
        if self.fd is not None:
            self._let_go(self.fd)
            self.fd = None

    def _make_way(self, size: int) -> int:
        """The segment that takes so many bytes more. Raises UnableToRecord."""
        if self._size and self._size + size > self._segment_bytes:
            self.close()
        fd = self._start_segment() if self.fd is None else self.fd
        if size > self._room:
            self._look_for_room(size)
        return fd

    def _put(self, fd: int, frame: bytes) -> None:
        try:
            written = self._write(fd, frame)
            if written == len(frame) and self._sync:
                os.fdatasync(fd)
        except OSError as error:
            self._take_back(fd)
            raise UnableToRecord(f"writing failed: {os.strerror(error.errno or 0)}") from error
        if written != len(frame):
            self._take_back(fd)
            raise UnableToRecord("the disk took only a part of the record")
        self._size += written
        self._room -= written

    def _take_back(self, fd: int) -> None:
        """Cut off a partial frame, or it would hide what is appended after it; failing that, leave the segment."""
        try:
            os.ftruncate(fd, self._size)
        except OSError:
            self.close()

    def _start_segment(self) -> int:
        """Create the segment under a name no reader looks at, lock it, and only then give it its name."""
        name = f"{time.time_ns():020d}-{os.getpid()}-{self.started:06d}"
        hidden = self._directory / f".{name}"
        try:
            fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnableToRecord(f"no new segment: {os.strerror(error.errno or 0)}") from error
        fcntl.flock(fd, fcntl.LOCK_EX)  # nobody else has the file yet
        hidden.rename(self._directory / f"{name}{_SUFFIX}")
        if self._sync:
            sync_directory(self._directory)
        self.started += 1
        self.fd, self._size = fd, 0
        self._room = self._max_bytes - _total_bytes(self._directory)
        return fd

    def _look_for_room(self, wanted: int) -> None:
        self._room = self._max_bytes - _total_bytes(self._directory)
        if wanted > self._room:
            raise UnableToRecord("the spool has reached its bound")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one read gave. `damaged` counts frames that were skipped; `reached` says, by segment, how far this goes.

    `spent` are the segments that nobody writes to any more and that this batch has read to the end.
    """

    records: tuple[CallRecord, ...]
    damaged: int
    reached: dict[str, int]
    spent: tuple[str, ...]


class SpoolReader:
    """The reading side: one per directory. At least once: what was read but not committed is read again."""

    def __init__(self, directory: Path) -> None:
        """Take the directory. Raises UnableToRead while another reader has it."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._lock = os.open(directory / "reader.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise UnableToRead("another reader holds the spool") from error
        self._decoder = msgspec.msgpack.Decoder(CallRecord)
        self._cursor = self._load_cursor()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, *, limit: int = 500) -> Batch:
        """Up to `limit` records after the committed ones, oldest segment first; empty when there is nothing new."""
        records: list[CallRecord] = []
        reached: dict[str, int] = {}
        spent: list[str] = []
        damaged = size = 0
        for path in _segments(self._directory):
            if len(records) >= limit or size >= _BATCH_BYTES:
                break
            part = _scan(path, start=self._cursor.get(path.name, 0), limit=limit - len(records))
            whole = [record for payload in part.payloads if (record := self._decode(payload)) is not None]
            records += whole
            damaged += part.damaged + len(part.payloads) - len(whole)
            size += sum(map(len, part.payloads))
            reached[path.name] = part.offset
            spent += [path.name] if part.spent else []
        return Batch(records=tuple(records), damaged=damaged, reached=reached, spent=tuple(spent))

    def commit(self, batch: Batch) -> None:
        """Never give the batch's records again, and delete the segments that it has used up. Survives a restart."""
        self._cursor |= batch.reached
        self._save_cursor()
        for name in batch.spent:
            (self._directory / name).unlink(missing_ok=True)
            self._cursor.pop(name, None)

    def backlog_bytes(self) -> int:
        """Bytes written and not yet committed, of all writers."""
        sizes = {path.name: _size_of(path) for path in _segments(self._directory)}
        return sum(max(0, size - self._cursor.get(name, 0)) for name, size in sizes.items())

    def close(self) -> None:
        """Let another reader have the directory."""
        os.close(self._lock)

    def _decode(self, payload: bytes) -> CallRecord | None:
        try:
            return self._decoder.decode(payload)
        except msgspec.MsgspecError:
            return None

    def _load_cursor(self) -> dict[str, int]:
        """The committed offsets. A lost or damaged cursor costs reading again, never a record."""
        try:
            cursor = msgspec.msgpack.decode((self._directory / _CURSOR).read_bytes(), type=dict[str, int])
        except (FileNotFoundError, msgspec.MsgspecError):
            return {}
        present = {path.name for path in _segments(self._directory)}
        return {name: offset for name, offset in cursor.items() if name in present}

    def _save_cursor(self) -> None:
        fresh = self._directory / f"{_CURSOR}.new"
        with fresh.open("wb") as file:
            file.write(msgspec.msgpack.encode(self._cursor))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._directory / _CURSOR)


@dataclass(slots=True)
class _Part:
    """What one pass over a segment gave. `spent`: it was read to the end and nobody writes to it any more."""

    payloads: list[bytes]
    offset: int
    damaged: int = 0
    spent: bool = False


def _scan(path: Path, *, start: int, limit: int) -> _Part:
    """Up to `limit` whole frames of one segment from `start` on."""
    part, size = _Part(payloads=[], offset=start), 0
    with path.open("rb") as file:
        dead = _is_abandoned(file)  # asked before reading: what was written after it was seen dead cannot be
        file.seek(start)
        while len(part.payloads) < limit and size < _BATCH_BYTES:
            payload, checks = _next_payload(file)
            if payload is None or not (checks or dead):
                # A frame that fails its checksum may, in a live segment, still be on its way: look again later.
                part.spent = dead
                part.damaged += int(dead and file.seek(0, os.SEEK_END) > part.offset)  # a torn tail
                return part
            part.offset, size = file.tell(), size + len(payload)
            if checks:
                part.payloads.append(payload)
            else:
                part.damaged += 1
    return part


def _next_payload(file: BinaryIO) -> tuple[bytes | None, bool]:
    """(payload, whether its checksum holds); None where no whole frame follows. A length of 0 is a hole, no frame."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None, False
    length, checksum = _HEAD.unpack(head)
    payload = file.read(length) if 0 < length <= _MAX_RECORD_BYTES else b""
    return (payload, crc32(payload) == checksum) if payload and len(payload) == length else (None, False)


def _is_abandoned(file: BinaryIO) -> bool:
    """Whether no writer holds the segment: it was closed, or its process is gone."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync_directory(directory: Path) -> None:
    """Have the names of its files on the disk too. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _segments(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"*{_SUFFIX}"))


def _total_bytes(directory: Path) -> int:
    return sum(map(_size_of, _segments(directory)))


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a reader deleted it since it was listed
        return 0
