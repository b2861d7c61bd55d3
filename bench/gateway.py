"""What one call costs in the gateway: `python -m bench.gateway`, about 20 seconds, loopback only.

The gateway has one core to itself, an instant upstream and the load generator share another, or have one each. A call
is the whole product: key, parse, fingerprint, forward, read the answer, seal both bodies, write the spool.
"""

import argparse
import asyncio
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import CHUNKS, HEADINGS, UPSTREAM, Target, Upstream, measure, run_upstream, wait_until_ready
from serving.core.snapshot import KeyEntry, ProviderEntry, Snapshot, TenantEntry
from serving.gateway.settings import snapshot_key
from serving.gateway.snapshot_file import write_snapshot
from tenants.core.keys import mint_key

ROOT = Path(__file__).resolve().parents[1]
KEY = mint_key(b"b" * 32)
SECRET = b"a secret for measurements, and for nothing else"
PORT = 18902


def publish(path: Path) -> None:
    """A snapshot with one key."""
    providers: dict[str, tuple[ProviderEntry, ...]] = {
        "openai": (ProviderEntry(base_url=f"http://127.0.0.1:{UPSTREAM}", credential="x"),)
    }
    tenant = TenantEntry(active=True, data_key=b"d" * 32, subject_key=b"s" * 32, salt="x", providers=providers)
    keys = {KEY.digest: KeyEntry(tenant_id="t", key_id="k")}
    snapshot = Snapshot(version=1, made_at=0.0, keys=keys, tenants={"t": tenant})
    write_snapshot(path, snapshot, key=snapshot_key(SECRET))


@contextmanager
def upstream(core: int, make: Callable[[], asyncio.Protocol] = Upstream) -> Iterator[None]:
    """The instant upstream; whoever starts it keeps to this core, and shares it where there are but two."""
    cores = sorted(os.sched_getaffinity(0))
    process = multiprocessing.Process(target=run_upstream, args=(make,), daemon=True)
    os.sched_setaffinity(0, {core})
    process.start()
    if len(cores) > 2 and process.pid is not None:
        os.sched_setaffinity(process.pid, {cores[-2]})
    try:
        yield
    finally:
        process.terminate()


@contextmanager
def gateway(core: int, tree: Path = ROOT) -> Iterator[Target]:
    """Ours, in one process on this core, from this tree: the one that we are in, or a compiled copy."""
    with tempfile.TemporaryDirectory() as directory:
        publish(Path(directory) / "snapshot")
        paths = {"SNAPSHOT_FILE": f"{directory}/snapshot", "SPOOL_DIR": f"{directory}/spool"}
        environ = {
            **os.environ,
            **paths,
            "SECRET_KEY": SECRET.decode(),
            "GATEWAY_PORT": str(PORT),
            "PYTHONPATH": os.pathsep.join([str(tree), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
        }
        process = subprocess.Popen([sys.executable, "-m", "serving.gateway"], env=environ, cwd=tree)
        try:
            os.sched_setaffinity(process.pid, {core})
            spool = Path(directory) / "spool"
            target = Target("understudy", PORT, process.pid, {"authorization": f"Bearer {KEY.plain}"}, spool)
            wait_until_ready(target, process, path="/readyz")
            yield target
        finally:
            process.terminate()
            process.wait(10)


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options.add_argument("--connections", type=int, default=64)
    options.add_argument(
        "--tree", type=Path, default=ROOT, help="whose gateway: a copy that deploy/compile.py made, say"
    )
    chosen = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with upstream(cores[-1]), gateway(cores[0], chosen.tree.resolve()) as ours:
        print(HEADINGS)
        for name, connections, stream in (
            (f"whole answers, {chosen.connections} connections", chosen.connections, False),
            ("whole answers, 1 connection", 1, False),
            (f"streams of {CHUNKS}, {chosen.connections} connections", chosen.connections, True),
        ):
            row = measure(ours, name=name, connections=connections, stream=stream, seconds=chosen.seconds)
            print(row.line(), flush=True)


if __name__ == "__main__":
    main()
