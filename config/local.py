"""Starts this machine's replicas for a command that needs them, on free ports, and stops them afterwards."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from config import processes
from config.embedded import free_port
from config.models_here import ensure_models


@contextmanager
def replicas_for(rung: str, *, tell: Callable[[str], None]) -> Iterator[None]:
    """An encoder, and for a LoRA a vLLM; the settings point at them meanwhile. Raises UnableToRun."""
    ensure_models(tell=tell)
    ports = processes.Ports(vllm=free_port(), encoder=free_port())
    household = processes.Household(environ=os.environ, logs=Path(settings.STATE_DIR) / "logs")
    before = settings.ENCODER_URLS, settings.VLLM_URLS
    try:
        for program in programs_for(rung, ports):
            tell(f"starting {program.name}")
            household.start(program)
            household.wait_ready(program.name)
        settings.ENCODER_URLS = [f"http://127.0.0.1:{ports.encoder}"]
        settings.VLLM_URLS = [f"http://127.0.0.1:{ports.vllm}"]
        yield
    finally:
        settings.ENCODER_URLS, settings.VLLM_URLS = before
        household.stop()


def programs_for(rung: str, ports: processes.Ports) -> list[processes.Program]:
    """The replicas a rung answers from."""
    encoder = processes.encoder(ports, model=settings.ENCODER_MODEL, cache=Path(settings.ARTIFACTS_CACHE))
    if rung == "head":
        return [encoder]
    engine = processes.vllm(
        ports, base_model=settings.BASE_MODEL, served_name=settings.BASE_SERVED_NAME, rank=settings.LORA_RANK
    )
    return [encoder, engine]
