"""The process between gateways and the database, one a machine: spool into PostgreSQL, rows into the snapshot file.

Either direction goes on while the other is stuck, and nothing is committed to the spool's cursor before PostgreSQL has
it. With the database away it waits and tries again; the spool grows, and callers notice nothing.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import msgspec
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections

from ingestion.core.calls import CallRecord
from ingestion.prices import PriceBook
from ingestion.spool import SpoolReader
from ingestion.store import store_calls
from serving.core.snapshot import Snapshot
from serving.gateway.settings import snapshot_key
from serving.gateway.snapshot_file import write_snapshot
from serving.publish import make_snapshot
from tenants.core.sealing import UnableToOpen

log = logging.getLogger(__name__)

BATCH = 500
SNAPSHOT_SECONDS = 1.0
PRICES_SECONDS = 300.0
IDLE_SECONDS = 0.2
LONGEST_WAIT = 10.0


class Feed:
    """Both directions, a step at a time."""

    def __init__(self, reader: SpoolReader, *, snapshot_file: Path, key: bytes) -> None:
        self._reader = reader
        self._file = snapshot_file
        self._key = key
        self._book: tuple[float, PriceBook] | None = None
        self._published: Snapshot | None = None

    def drain(self, now: datetime) -> int:
        """Move one batch into the database; gives its size. Raises DatabaseError with nothing committed."""
        batch = self._reader.read(limit=BATCH)
        if batch.damaged:
            log.warning("%d damaged records were skipped", batch.damaged)
        if not batch.records and not batch.damaged:
            return 0
        parked = store_calls(batch.records, price=self._pricer(now), now=now)
        self._reader.commit(batch)
        if parked:
            log.error("%d records were parked", parked)
        return len(batch.records)

    def publish(self, now: datetime) -> bool:
        """Write the snapshot if the world has changed, or the file is gone. Raises DatabaseError."""
        made = make_snapshot(now)
        if not made.tenants:  # a lost policy or role looks like an empty system
            log.warning("no tenants: the last snapshot stays in force")
            return False
        if self._file.exists() and self._published is not None and _same(made, self._published):
            return False
        write_snapshot(self._file, made, key=self._key)
        self._published = made
        return True

    def _pricer(self, now: datetime) -> Callable[[CallRecord], Decimal | None]:
        if self._book is None or time.monotonic() - self._book[0] > PRICES_SECONDS:
            self._book = (time.monotonic(), PriceBook.load(now))
        return self._book[1].cost_of


def run(feed: Feed, *, clock: Callable[[], datetime], stopped: Callable[[], bool]) -> None:
    """Drain and publish until told to stop; what is left in the spool is the next start's."""
    wait, next_snapshot = IDLE_SECONDS, 0.0
    while not stopped():
        if time.monotonic() >= next_snapshot:
            _try(lambda: int(feed.publish(clock())), what="the snapshot")
            next_snapshot = time.monotonic() + SNAPSHOT_SECONDS
        moved = _try(lambda: feed.drain(clock()), what="the spool")
        wait = IDLE_SECONDS if moved is not None else min(wait * 2, LONGEST_WAIT)
        if not moved:
            time.sleep(wait)


def _try(step: Callable[[], int], *, what: str) -> int | None:
    """One step of one direction; None where the database, or a key, is not there for it."""
    try:
        return step()
    except (DatabaseError, InterfaceError, UnableToOpen, msgspec.ValidationError) as error:
        log.warning("%s has to wait: %s", what, type(error).__name__)
        connections.close_all()
        return None


def open_feed() -> Feed:
    """The feed of this machine, on the configured spool and snapshot file. Raises UnableToRead if one runs already."""
    spool = Path(settings.SPOOL_DIR)
    spool.mkdir(parents=True, exist_ok=True)
    key = snapshot_key(settings.SECRET_KEY.encode())
    return Feed(SpoolReader(spool), snapshot_file=Path(settings.SNAPSHOT_FILE), key=key)


def _same(one: Snapshot, other: Snapshot) -> bool:
    return one == msgspec.structs.replace(other, version=one.version, made_at=one.made_at)
