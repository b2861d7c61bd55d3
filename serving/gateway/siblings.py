"""One page of metrics for several processes: whichever is asked gives the numbers of all, each under its `process`.

Each leaves its page in a directory once a second, and a last time when it stops. A process that ended keeps its numbers
until another takes its place in the row, so that what it counted last is not lost to whoever asks now and then.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

PUBLISH_SECONDS = 1.0
STALE_SECONDS = 10.0


class Siblings(Collector):
    """The pages of all processes that meet in `directory`; `render` makes that of process `number`."""

    def __init__(self, directory: Path, number: int, *, render: Callable[[], bytes]) -> None:
        self._page = directory / str(number)
        self._render = render
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    async def watch(self) -> None:
        """Publish for ever."""
        while True:
            self.publish()
            await asyncio.sleep(PUBLISH_SECONDS)

    def publish(self) -> None:
        """Leave this process's page where the others find it."""
        draft = self._page.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk: the page is as old as it is
            draft.write_bytes(self._render())
            os.replace(draft, self._page)

    def render(self) -> bytes:
        """Everybody's numbers, in Prometheus' text format."""
        self.publish()
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client renders: each metric once, with the samples of every process."""
        found: dict[str, Metric] = {}
        for page in sorted(path for path in self._page.parent.iterdir() if path.name.isdigit()):
            is_old = time.time() - page.stat().st_mtime > STALE_SECONDS
            for metric in text_string_to_metric_families(page.read_text()):
                if is_old and metric.type == "gauge":
                    continue  # of a process that has ended: what it counted still counts, what it was no longer is
                known = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                known.samples += [
                    sample._replace(labels={**sample.labels, "process": page.name}) for sample in metric.samples
                ]
        yield from found.values()
