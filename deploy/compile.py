"""Compiles the modules that every call runs through: python deploy/compile.py DIRECTORY

DIRECTORY gets a copy of this tree in which mypyc (which comes with mypy) has made them native, from the same source.
That is what the image holds, what the benches measure, and what CI holds against the gateway's tests once more; one
works on plain Python (docs/adr/0012). Shapes (`msgspec.Struct`) and what runs seldom stay as they are.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = ".compiled"
LEFT_OUT = (".git", ".venv", ".state", "__pycache__", ".*_cache", "*.so", "build", MARK)
NATIVE = (
    *("ingestion/core/reading.py", "ingestion/core/openai_wire.py", "ingestion/core/anthropic_wire.py"),
    *("ingestion/core/responses_wire.py", "ingestion/core/dialects.py", "ingestion/core/sse.py"),
    *("ingestion/core/fingerprint.py", "ingestion/spool.py", "tenants/core/keys.py", "tenants/core/sealing.py"),
    *("serving/core/breaker.py", "serving/core/destinations.py", "serving/core/estimate.py"),
    *("serving/core/paths.py", "serving/core/retries.py"),
    *("serving/gateway/answer.py", "serving/gateway/app.py", "serving/gateway/capture.py"),
    *("serving/gateway/commit.py", "serving/gateway/connection.py", "serving/gateway/exchange.py"),
    *("serving/gateway/failover.py", "serving/gateway/limits.py", "serving/gateway/memory.py"),
    *("serving/gateway/messages.py", "serving/gateway/metrics.py", "serving/gateway/pool.py"),
    *("serving/gateway/protocol.py", "serving/gateway/relay.py", "serving/gateway/teachers.py"),
    "serving/gateway/upstream.py",
)
# Types of what is not compiled are taken on trust, as its own checks have found them; this project's settings for mypy
# need Django, which nothing here does.
OPTIONS = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent", "--no-error-summary")
SETUP = """
from setuptools import setup
from mypyc.build import mypycify
setup(packages=[], ext_modules=mypycify({!r}, opt_level="3"))
"""


def main(arguments: list[str]) -> int:
    """Make or bring up to date; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python deploy/compile.py DIRECTORY\n")
        return 2
    home = Path(arguments[0]).resolve()
    files = sorted(path for path in ROOT.rglob("*") if path.is_file() and not _is_left_out(path, home))
    digest = digest_of(files)
    mark = home / MARK
    if mark.exists() and mark.read_text() == digest:
        return 0
    sys.stdout.write(f"compiling {len(NATIVE)} modules into {home.name}: a minute or two\n")
    sys.stdout.flush()
    if home.exists() and not mark.exists():
        sys.stderr.write(f"{home} is there already, and not made by this\n")
        return 2
    copy(files, home)
    said = build(home)
    if said:
        sys.stderr.write(said)
        return 1
    mark.write_text(digest)
    return 0


def digest_of(files: list[Path]) -> str:
    """A digest of these files, and of the Python that they are compiled for."""
    found = hashlib.sha256(sys.version.encode())
    for path in files:
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def copy(files: list[Path], home: Path) -> None:
    """The tree as it is, without what an earlier one left."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / MARK).touch()  # so that one that breaks here may be made again
    for path in files:
        place = home / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)


def build(home: Path) -> str:
    """Compile in place; gives what went wrong, empty if nothing did."""
    command = [sys.executable, "-c", SETUP.format([*OPTIONS, *NATIVE]), "build_ext", "--inplace"]
    environ = {**os.environ, "MYPYPATH": str(home)}
    done = subprocess.run(command, cwd=home, env=environ, capture_output=True, text=True)
    shutil.rmtree(home / "build", ignore_errors=True)
    return "" if done.returncode == 0 else done.stdout[-4000:] + done.stderr[-4000:]


def _is_left_out(path: Path, home: Path) -> bool:
    inside = path.relative_to(ROOT)
    ours = any(Path(part).match(pattern) for part in inside.parts for pattern in LEFT_OUT)
    return ours or path.is_relative_to(home)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
