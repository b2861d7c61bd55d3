"""Keeps the newest good snapshot at hand, so that a call asks no database and a bad file stops nobody.

The feed writes the file by rename, so a reader sees a whole one or none. A file that cannot be read, opened or decoded
leaves the last good snapshot in force.
"""

import asyncio
import logging
import os
from pathlib import Path

from serving.core.snapshot import Snapshot, UnableToReadSnapshot, decode, encode
from serving.gateway.settings import SNAPSHOT_CONTEXT
from tenants.core.sealing import UnableToOpen, open_sealed, seal

POLL_SECONDS = 0.5

logger = logging.getLogger(__name__)


def write_snapshot(path: Path, snapshot: Snapshot, *, key: bytes) -> None:
    """Seal the snapshot into `path` by rename; readable by this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(seal(key, encode(snapshot), context=SNAPSHOT_CONTEXT))
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


class SnapshotFile:
    """The file, watched. `failures` counts the files that could not be taken."""

    def __init__(self, path: Path, *, key: bytes) -> None:
        self._path = path
        self._key = key
        self._seen: tuple[int, int, int] | None = None
        self._current: Snapshot | None = None
        self.failures = 0

    def current(self) -> Snapshot | None:
        """The newest good snapshot; None until there has been one."""
        return self._current

    def refresh(self) -> None:
        """Take the file if it changed. Never raises for what is in the file or missing."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._seen:
                return
            self._seen = stamp
            self._current = decode(open_sealed(self._key, self._path.read_bytes(), context=SNAPSHOT_CONTEXT))
        except FileNotFoundError:
            self._seen = None  # not written yet, or taken away: the last good one stays
        except (OSError, UnableToOpen, UnableToReadSnapshot) as error:
            self.failures += 1
            logger.warning("snapshot refused, the last good one stays in force: %s", type(error).__name__)

    async def watch(self) -> None:
        """Refresh for ever, in a thread: opening and decoding a large snapshot must not hold up calls."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.refresh)
