"""Real processes on the test's own database, broker, spool and snapshot."""

import os
import sys
from collections.abc import Iterator

import httpx
import pytest
from django.conf import settings

from config import processes
from config.embedded import free_port
from config.processes import Household, Ports
from tests.fakes.serve import wait_for


@pytest.fixture
def ports() -> Ports:
    return Ports(web=free_port(), gateway=free_port(), vllm=free_port(), encoder=free_port())


@pytest.fixture
def household(tmp_path, database) -> Iterator[Household]:
    """Starts processes as `manage.py up` does, with a quick clock; their logs are shown when a test fails."""
    environ = {
        **os.environ,
        "SECRET_KEY": settings.SECRET_KEY,
        "SPOOL_DIR": str(tmp_path / "spool"),
        "SNAPSHOT_FILE": str(tmp_path / "snapshot"),
        "STUDENT_TIMEOUT_S": "20",
        "BEAT_SECONDS": "1",
        "AUDIT_SHARE": "1.0",
        "RAMP_AUDIT_SHARE": "1.0",
        "SHADOW_SHARE": "1.0",
        "LEASE_SECONDS": "6",
    }
    house = Household(environ=environ, logs=tmp_path / "logs")
    yield house
    house.stop()
    for log in sorted((tmp_path / "logs").iterdir()):
        sys.stdout.write(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}\n")


def start_gateway(house: Household, ports: Ports, *, key: str) -> httpx.Client:
    """Feed and gateway, and a client that the gateway already knows."""
    house.start(processes.feed())
    house.start(processes.gateway(ports))
    house.wait_ready("gateway")
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{ports.gateway}", headers={"authorization": f"Bearer {key}"}, timeout=60
    )
    wait_for(lambda: client.post("/v1/chat/completions", content=b"{}").status_code == 400)
    return client
