"""Starts every process of the product on this machine, and stops them together."""

import argparse
import os
import signal
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from config import processes
from config.models_here import ensure_models
from config.processes import Household, Ports, Program, UnableToRun

LOOK_SECONDS = 0.5


class Command(BaseCommand):
    """Runs until Ctrl-C, SIGTERM, or until one of the processes ends by itself."""

    help = __doc__
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Ports are all on loopback."""
        parser.add_argument("--web-port", type=int, default=Ports.web)
        parser.add_argument("--gateway-port", type=int, default=Ports.gateway)
        parser.add_argument("--vllm-port", type=int, default=Ports.vllm)
        parser.add_argument("--encoder-port", type=int, default=Ports.encoder)

    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate, make what is missing, start, watch, stop."""
        told: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _frame: told.append(received))
        ports = Ports(
            web=options["web_port"],
            gateway=options["gateway_port"],
            vllm=options["vllm_port"],
            encoder=options["encoder_port"],
        )
        household = Household(environ=environment(ports), logs=Path(settings.STATE_DIR) / "logs")
        try:
            call_command("migrate", verbosity=0)
            ensure_models(tell=self._tell)
            self._start(household, programs(ports), told)
            while not told and not household.ended():
                time.sleep(LOOK_SECONDS)
            if household.ended():
                raise CommandError(f"{', '.join(household.ended())} ended: see {settings.STATE_DIR / 'logs'}")
        except UnableToRun as error:
            raise CommandError(str(error)) from error
        finally:
            household.stop()

    def _start(self, household: Household, wanted: list[Program], told: list[int]) -> None:
        for program in wanted:
            household.start(program)
        for program in wanted:
            if not told:
                household.wait_ready(program.name, tell=self._tell)
                self._tell(f"{program.name} is ready")
        self._tell("everything is up")

    def _tell(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def programs(ports: Ports) -> list[Program]:
    """Every process of one machine; the slow starters first."""
    return [
        processes.vllm(
            ports, base_model=settings.BASE_MODEL, served_name=settings.BASE_SERVED_NAME, rank=settings.LORA_RANK
        ),
        processes.encoder(ports, model=settings.ENCODER_MODEL, cache=Path(settings.ARTIFACTS_CACHE)),
        processes.feed(),
        processes.gateway(ports),
        processes.web(ports),
        processes.worker(queues=("default",), name="worker", at_once=2),
        processes.worker(queues=("webhooks",), name="courier", at_once=1),
        processes.worker(queues=("audits",), name="auditor", at_once=2),
        processes.worker(queues=("training", "evaluation"), name="trainer", at_once=1),  # both want every core
        processes.beat(Path(settings.STATE_DIR)),
    ]


def environment(ports: Ports) -> dict[str, str]:
    """What every process is told, beyond what this one was: where the others are, and the same secret and files."""
    told = {
        "SECRET_KEY": settings.SECRET_KEY,
        "STATE_DIR": str(settings.STATE_DIR),
        "SPOOL_DIR": str(settings.SPOOL_DIR),
        "SNAPSHOT_FILE": str(settings.SNAPSHOT_FILE),
        "VLLM_URLS": f"http://127.0.0.1:{ports.vllm}",
        "ENCODER_URLS": f"http://127.0.0.1:{ports.encoder}",
        "GATEWAY_URL": f"http://127.0.0.1:{ports.gateway}",
        "STUDENT_TIMEOUT_S": str(settings.STUDENT_TIMEOUT_S),
    }
    return {**os.environ, **told}
