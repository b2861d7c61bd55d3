"""Holds that what the demo starts does start."""

import httpx
import pytest

from demo.house import pick_port, start_stand_in
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


def ask_for_models(port: int, credential: str) -> int | None:
    try:
        url = f"http://127.0.0.1:{port}/v1/models"
        return httpx.get(url, headers={"authorization": f"Bearer {credential}"}).status_code
    except httpx.ConnectError:
        return None
