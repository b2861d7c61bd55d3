"""A real gateway on a real socket, with a teacher, an encoder and a vLLM that are real servers too."""

from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.fakes.serve import Served, Stand
from tests.serving.gateway.cast import Stage, claude_at, serve_gateway, talk_to


@pytest.fixture(scope="session")
def stands() -> Iterator[dict[str, tuple[Stand, str]]]:
    """Three servers for all tests: name to the stand and its URL."""
    found = {name: Stand() for name in ("teacher", "encoder", "replica")}
    with Served(found["teacher"]) as teacher, Served(found["encoder"]) as encoder, Served(found["replica"]) as replica:
        urls = {"teacher": teacher.url, "encoder": encoder.url, "replica": replica.url}
        yield {name: (stand, urls[name]) for name, stand in found.items()}


@pytest.fixture
def stage(tmp_path, stands) -> Stage:
    """The cast without a gateway."""
    stage = Stage(directory=tmp_path)
    for name, (stand, url) in stands.items():
        stand.app = getattr(stage, name)
        stage.urls[name] = url
    return stage


@pytest.fixture
def live(stage) -> Iterator[Stage]:
    """The cast with a gateway that has a snapshot."""
    stage.publish()
    with serve_gateway(stage) as gateway:
        stage.url = gateway.url
        yield stage


@pytest.fixture
def talk(live) -> Iterator[openai.OpenAI]:
    with talk_to(live.url) as client:
        yield client


@pytest.fixture
def claude(live) -> Iterator[anthropic.Anthropic]:
    with claude_at(live.url) as client:
        yield client
