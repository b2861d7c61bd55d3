"""Holds that what the demo starts does start, and that none of it outlives a Ctrl-C, whenever that comes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from demo.house import ROOT, Started, pick_port, start_stand_in
from tests.fakes.serve import wait_for


@pytest.mark.parametrize("credential", ["plain", "-begins-with-a-dash", "--port"])
def test_the_stand_in_starts_whatever_its_credential_looks_like(tmp_path, credential):
    port = pick_port(0)
    process = start_stand_in(port=port, credential=credential, log=tmp_path / "teacher.log")
    try:
        answer = wait_for(lambda: process.poll() is not None or ask_for_models(port, credential), patience=60)
        assert answer == 200
    finally:
        process.terminate()
        process.wait()


def test_one_that_does_not_heed_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr("demo.house.STOP_SECONDS", 0.5)
    deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"1\n"
    Started([process]).stop()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_while_everything_starts_leaves_no_process_behind(tmp_path, ending):
    """Also pressed twice, as people do."""
    environ = {**os.environ, "DEMO_STATE_DIR": str(tmp_path / "state"), "MODELS_DIR": str(tmp_path / "no-models")}
    with subprocess.Popen(
        [sys.executable, "-m", "demo", "--exit"], cwd=ROOT, env=environ, stdout=subprocess.PIPE, start_new_session=True
    ) as demo:
        started = wait_for(lambda: offspring_of(demo.pid) if len(offspring_of(demo.pid)) >= 2 else None, patience=60)
        demo.send_signal(ending)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=60) == 130
    assert wait_for(lambda: not [pid for pid in started if is_alive(pid)], patience=30)


def offspring_of(parent: int) -> set[int]:
    """Process ids of children and their children."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = status.read_text().split(" (")[0], status.read_text().rpartition(") ")[2]
        except OSError:
            continue
        parents[int(pid)] = int(rest.split()[1])
    found = {parent}
    while more := {pid for pid, above in parents.items() if above in found} - found:
        found |= more
    return found - {parent}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def ask_for_models(port: int, credential: str) -> int | None:
    try:
        url = f"http://127.0.0.1:{port}/v1/models"
        return httpx.get(url, headers={"authorization": f"Bearer {credential}"}).status_code
    except httpx.ConnectError:
        return None
