"""A gateway keeps serving from the last good snapshot, whatever happens to the file."""

import pytest

from serving.core.snapshot import Snapshot
from serving.gateway.settings import snapshot_key
from serving.gateway.snapshot_file import SnapshotFile, write_snapshot
from tests.serving.gateway.cast import PLAIN, SECRET

KEY = snapshot_key(SECRET)


@pytest.fixture
def good(stage):
    stage.publish()
    return stage.directory / "snapshot.sealed"


def test_a_new_file_is_taken(stage, good):
    file = SnapshotFile(good, key=KEY)
    assert file.current() is None
    file.refresh()
    assert file.current().version == 1
    stage.publish()
    file.refresh()
    assert file.current().version == 2


@pytest.mark.parametrize("content", [b"", b"\x01", b"half a file" * 50])
def test_a_damaged_file_leaves_the_last_good_one_in_force(good, content, caplog):
    file = SnapshotFile(good, key=KEY)
    file.refresh()
    good.write_bytes(content)
    for _ in range(3):
        file.refresh()
    assert (file.current().version, file.failures) == (1, 1)
    assert "snapshot refused" in caplog.text and PLAIN.digest not in caplog.text


def test_a_file_without_keys_or_of_another_secret_is_refused(good):
    file = SnapshotFile(good, key=KEY)
    file.refresh()
    write_snapshot(good, Snapshot(version=9, made_at=0.0, keys={}, tenants={}), key=KEY)
    file.refresh()
    assert (file.current().version, file.failures) == (1, 1)
    other = SnapshotFile(good, key=snapshot_key(b"another secret of the same length!!"))
    other.refresh()
    assert (other.current(), other.failures) == (None, 1)


def test_a_file_taken_away_changes_nothing_and_coming_back_is_taken(stage, good):
    file = SnapshotFile(good, key=KEY)
    file.refresh()
    good.unlink()
    file.refresh()
    assert (file.current().version, file.failures) == (1, 0)
    stage.publish()
    file.refresh()
    assert file.current().version == 2


def test_the_file_is_for_its_owner_alone_and_names_no_key(good):
    assert good.stat().st_mode & 0o077 == 0
    assert PLAIN.digest.encode() not in good.read_bytes()
    assert list(good.parent.glob(".*")) == []
