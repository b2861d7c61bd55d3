"""What was acknowledged is read again, whoever dies and whatever the disk does."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestion.core.calls import CallRecord
from ingestion.spool import Spool, SpoolReader, UnableToRead, UnableToRecord

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from pathlib import Path
from ingestion.core.calls import CallRecord
from ingestion.spool import Spool
spool = Spool(Path(sys.argv[1]), segment_bytes=20_000, max_bytes=10**9)
for number in range(int(sys.argv[3])):
    call = f"{sys.argv[2]}-{number}"
    spool.append(CallRecord(id=call, tenant_id="t", key_id="k", at=0.0, dialect="openai", asked_model="m",
                            request_sealed=b"x" * 1500))
    print(call, flush=True)
"""
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from ingestion.core.calls import CallRecord
from ingestion.spool import Spool, UnableToRecord
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
spool = Spool(Path(sys.argv[1]), segment_bytes=10**6, max_bytes=10**9)
for number in range(20):
    try:
        spool.append(CallRecord(id=str(number), tenant_id="t", key_id="k", at=0.0, dialect="openai", asked_model="m",
                                request_sealed=b"x" * (1500 if number < 10 else 5)))
        print(number, flush=True)
    except UnableToRecord:
        pass
"""


def test_what_was_appended_is_read_in_order_and_once_committed_is_gone(tmp_path):
    with_spool(tmp_path, *(a_record(str(number)) for number in range(10)))
    with SpoolReader(tmp_path) as reader:
        assert drain(reader, limit=3) == [str(number) for number in range(10)]
        assert reader.read().records == ()
    assert segments(tmp_path) == []


def test_a_record_comes_back_whole(tmp_path):
    record = a_record("1", request_sealed=b"\0\xff", score=0.5, workload_id="w", complete=False)
    with_spool(tmp_path, record)
    with SpoolReader(tmp_path) as reader:
        assert reader.read().records == (record,)


def test_a_writer_killed_in_mid_write_loses_nothing_it_acknowledged(tmp_path):
    writer = start(WRITER, tmp_path, "w", "1000000")
    acknowledged = [writer.stdout.readline().strip() for _ in range(300)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += writer.communicate()[0].split()
    with SpoolReader(tmp_path) as reader:
        read = drain(reader)
    assert len(acknowledged) >= 300
    assert read[: len(acknowledged)] == acknowledged
    assert len(read) - len(acknowledged) <= 1  # written, and killed before it could say so
    assert segments(tmp_path) == []


def test_two_writers_at_once_lose_nothing(tmp_path):
    writers = [start(WRITER, tmp_path, name, "200") for name in "ab"]
    acknowledged = [writer.communicate()[0].split() for writer in writers]
    with SpoolReader(tmp_path) as reader:
        read = drain(reader)
    assert sorted(read) == sorted(acknowledged[0] + acknowledged[1])
    for calls in acknowledged:
        assert [call for call in read if call in set(calls)] == calls


def test_a_full_disk_refuses_a_record_and_keeps_all_others(tmp_path):
    written = start(FULL_DISK, tmp_path).communicate()[0].split()
    assert written[:2] == ["0", "1"]  # until it was full
    assert "9" not in written  # while it was
    assert written[-1] in {"10", "11", "12", "13", "14", "15", "16", "17", "18", "19"}  # a small one still fits
    with SpoolReader(tmp_path) as reader:
        batch = reader.read()
    assert [record.id for record in batch.records] == written
    assert batch.damaged == 0


@pytest.mark.parametrize("outcome", ["short", "error"])
def test_a_write_that_fails_leaves_no_trace(tmp_path, outcome):
    failing = FailingWrite(outcome)
    spool = Spool(tmp_path, segment_bytes=10**6, max_bytes=10**6, write=failing)
    spool.append(a_record("1"))
    failing.fails = True
    with pytest.raises(UnableToRecord):
        spool.append(a_record("2"))
    failing.fails = False
    spool.append(a_record("3"))
    spool.close()
    with SpoolReader(tmp_path) as reader:
        batch = reader.read()
    assert ([record.id for record in batch.records], batch.damaged) == (["1", "3"], 0)


def test_records_written_as_one_are_read_one_by_one(tmp_path):
    writes = []
    spool = Spool(
        tmp_path, segment_bytes=500, max_bytes=10**6, write=lambda fd, data: writes.append(0) or os.write(fd, data)
    )
    for numbers in (range(3), range(3, 10)):
        frames = [spool.frame(a_record(str(number))) for number in numbers]
        assert spool.append_frames(frames) == len(frames)
    spool.append(a_record("10"))
    spool.close()
    assert (len(writes), len(segments(tmp_path))) == (3, 3)
    assert reread(tmp_path) == ([str(number) for number in range(11)], 0)


@pytest.mark.parametrize("outcome", ["short", "error"])
def test_of_records_written_as_one_those_that_the_disk_took_stay_for_a_reader_may_have_seen_them(tmp_path, outcome):
    failing = FailingWrite(outcome)
    spool = Spool(tmp_path, segment_bytes=10**6, max_bytes=10**6, write=failing)
    frames = [spool.frame(a_record(str(number))) for number in range(5)]
    failing.fails = True
    taken = spool.append_frames(frames)
    assert taken == (2 if outcome == "short" else 0)  # half of five
    failing.fails = False
    assert spool.append_frames(frames[taken:]) == 5 - taken
    spool.close()
    assert reread(tmp_path) == (["0", "1", "2", "3", "4"], 0)


def test_records_beyond_the_bound_are_not_taken_as_one_either(tmp_path):
    spool = Spool(tmp_path, segment_bytes=10**6, max_bytes=1200)
    frames = [spool.frame(a_record(str(number))) for number in range(100)]
    assert spool.append_frames(frames) == 0
    assert spool.append_frames(frames[:2]) == 2
    assert sum(path.stat().st_size for path in segments(tmp_path)) == len(frames[0] + frames[1])


def test_a_refusal_says_nothing_of_the_call(tmp_path):
    spool = Spool(tmp_path, segment_bytes=10**6, max_bytes=10)
    with pytest.raises(UnableToRecord) as refused:
        spool.append(a_record("secret-id", request_sealed=b"secret-body"))
    assert "secret" not in repr(refused.value)


def test_a_spool_at_its_bound_takes_records_again_once_the_reader_has_made_room(tmp_path):
    spool = Spool(tmp_path, segment_bytes=500, max_bytes=2000)
    count = fill(spool)
    assert 2 <= count <= 8
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= 2000
    with SpoolReader(tmp_path) as reader:
        assert len(drain(reader)) == count
    spool.append(a_record("again"))
    with SpoolReader(tmp_path) as reader:
        assert [record.id for record in reader.read().records] == ["again"]


def test_a_reader_follows_a_running_writer_and_leaves_its_segment(tmp_path):
    spool = Spool(tmp_path, segment_bytes=10**6, max_bytes=10**6)
    with SpoolReader(tmp_path) as reader:
        for number in range(3):
            spool.append(a_record(str(number)))
            assert drain(reader) == [str(number)]
            assert len(segments(tmp_path)) == 1
        spool.close()
        assert drain(reader) == []
        assert segments(tmp_path) == []


def test_only_segments_that_were_committed_are_deleted(tmp_path):
    with_spool(tmp_path, *(a_record(str(number)) for number in range(6)), segment_bytes=1)
    assert len(segments(tmp_path)) == 6
    with SpoolReader(tmp_path) as reader:
        reader.read()
        assert len(segments(tmp_path)) == 6
        reader.commit(reader.read(limit=2))
        assert len(segments(tmp_path)) in (4, 5)  # the second goes once a read has seen its end
        assert drain(reader) == ["2", "3", "4", "5"]
    assert segments(tmp_path) == []


def test_a_restarted_reader_goes_on_where_it_committed(tmp_path):
    with_spool(tmp_path, *(a_record(str(number)) for number in range(6)))
    with SpoolReader(tmp_path) as reader:
        reader.commit(reader.read(limit=2))
        reader.read(limit=2)  # read, and never committed
    with SpoolReader(tmp_path) as reader:
        assert [record.id for record in reader.read().records] == ["2", "3", "4", "5"]


def test_a_lost_cursor_costs_reading_again_and_no_record(tmp_path):
    with_spool(tmp_path, *(a_record(str(number)) for number in range(4)))
    with SpoolReader(tmp_path) as reader:
        reader.commit(reader.read(limit=2))
    (tmp_path / "cursor.msgpack").write_bytes(b"\xc1 not msgpack")
    with SpoolReader(tmp_path) as reader:
        assert len(reader.read().records) == 4


def test_a_second_reader_is_refused(tmp_path):
    with SpoolReader(tmp_path), pytest.raises(UnableToRead):
        SpoolReader(tmp_path)


@pytest.mark.parametrize("lost", [1, 9, 60])
def test_a_torn_tail_is_skipped(tmp_path, lost):
    with_spool(tmp_path, a_record("1"), a_record("2"))
    (segment,) = segments(tmp_path)
    os.truncate(segment, segment.stat().st_size - lost)
    assert reread(tmp_path) == (["1"], 1)


def test_a_tail_of_zeros_after_a_power_cut_is_skipped(tmp_path):
    with_spool(tmp_path, a_record("1"))
    (segment,) = segments(tmp_path)
    os.truncate(segment, segment.stat().st_size + 4096)
    assert reread(tmp_path) == (["1"], 1)


def test_a_damaged_record_is_skipped_and_the_next_one_read(tmp_path):
    with_spool(tmp_path, a_record("1", request_sealed=b"AAAA"), a_record("2"))
    (segment,) = segments(tmp_path)
    segment.write_bytes(segment.read_bytes().replace(b"AAAA", b"AABA"))
    assert reread(tmp_path) == (["2"], 1)


def test_a_record_of_another_shape_is_counted_and_skipped(tmp_path):
    with_spool(tmp_path, a_record("1", status="not a number"), a_record("2"))
    assert reread(tmp_path) == (["2"], 1)


def test_a_record_is_on_the_disk_where_that_was_asked_for(tmp_path):
    spool = Spool(tmp_path, segment_bytes=10**6, max_bytes=10**6, ack="disk")
    spool.append(a_record("1"))
    spool.close()
    assert reread(tmp_path) == (["1"], 0)


def test_the_backlog_is_what_was_not_committed(tmp_path):
    with_spool(tmp_path, a_record("1"), a_record("2"))
    with SpoolReader(tmp_path) as reader:
        (segment,) = segments(tmp_path)
        assert reader.backlog_bytes() == segment.stat().st_size
        reader.commit(reader.read(limit=1))
        assert 0 < reader.backlog_bytes() < segment.stat().st_size
        drain(reader)
        assert reader.backlog_bytes() == 0


def test_nobody_else_on_the_machine_can_read_the_log(tmp_path):
    spool = Spool(tmp_path / "spool", segment_bytes=10**6, max_bytes=10**6)
    spool.append(a_record("1"))
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in segments(tmp_path / "spool"))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bodies=st.lists(st.none() | st.binary(max_size=200), max_size=12),
    segment_bytes=st.integers(1, 900),
    limit=st.integers(1, 5),
    reads=st.lists(st.booleans(), max_size=12),
)
def test_whatever_is_written_and_read_in_turns_each_record_comes_once(
    tmp_path_factory, bodies, segment_bytes, limit, reads
):
    directory = tmp_path_factory.mktemp("spool")
    spool = Spool(directory, segment_bytes=segment_bytes, max_bytes=10**6)
    read: list[str] = []
    with SpoolReader(directory) as reader:
        for number, body in enumerate(bodies):
            spool.append(a_record(str(number), request_sealed=body))
            if number < len(reads) and reads[number]:
                read += drain(reader, limit=limit)
        spool.close()
        read += drain(reader, limit=limit)
    assert read == [str(number) for number in range(len(bodies))]
    assert segments(directory) == []


class FailingWrite:
    """os.write until it is told to fail: half of the bytes, or no space left."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome
        self.fails = False

    def __call__(self, fd: int, data: bytes) -> int:
        if not self.fails:
            return os.write(fd, data)
        written = os.write(fd, data[: len(data) // 2])
        if self.outcome == "error":
            raise OSError(errno.ENOSPC, "No space left on device")
        return written


def a_record(call: str, **facts) -> CallRecord:
    return CallRecord(id=call, tenant_id="t", key_id="k", at=1.5, dialect="openai", asked_model="m", **facts)


def with_spool(directory: Path, *records: CallRecord, segment_bytes: int = 10**6) -> None:
    spool = Spool(directory, segment_bytes=segment_bytes, max_bytes=10**7)
    for record in records:
        spool.append(record)
    spool.close()


def fill(spool: Spool) -> int:
    for count in range(1000):
        try:
            spool.append(a_record(str(count)))
        except UnableToRecord:
            return count
    raise AssertionError("the spool has no bound")


def drain(reader: SpoolReader, *, limit: int = 500) -> list[str]:
    read: list[str] = []
    while (batch := reader.read(limit=limit)).records or batch.spent:
        read += [record.id for record in batch.records]
        reader.commit(batch)
    return read


def reread(directory: Path) -> tuple[list[str], int]:
    with SpoolReader(directory) as reader:
        batch = reader.read()
        reader.commit(batch)
    assert segments(directory) == []
    return [record.id for record in batch.records], batch.damaged


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.spool"))


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
