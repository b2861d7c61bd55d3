"""Makes the virtual environment from the lock file: python3.11 deploy/install.py [DIRECTORY]

Nothing is resolved here: what is installed is exactly what requirements.lock names, hashes included. The student engine
needs PyTorch's CPU build, which lies on the machine, or comes from PyTorch's own package index; both are tried.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
import venv
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
MARK = ".installed"
PARTS = 2


def main(arguments: list[str]) -> int:
    """Create or bring up to date; returns the exit code."""
    if sys.version_info[:2] != (3, 11):
        sys.stderr.write("Python 3.11 is needed (the student engine's CPU build is made for it)\n")
        return 2
    home = Path(arguments[0] if arguments else ROOT / ".venv").resolve()
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    mark = home / MARK
    if mark.exists() and mark.read_text() == digest:
        return 0
    sys.stdout.write(f"installing what {LOCK.name} names into {home.name}: some minutes, once\n")
    sys.stdout.flush()
    if not (home / "bin" / "python").exists():
        venv.create(home, with_pip=True)
    if not install(home / "bin" / "python"):
        return 1
    mark.write_text(digest)
    return 0


def install(python: Path) -> bool:
    """Install the lock, first with what this machine's pip finds, then with PyTorch's index beside it."""
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    pip += ["--no-deps", "--no-compile"]  # bytecode is written as it is used: most of these packages' files never are
    for extra in ([], ["--extra-index-url", TORCH_INDEX]):
        said: deque[str] = deque(maxlen=30)
        if run_pips([*pip, *extra], said):
            return True
    sys.stderr.write("".join(said))
    sys.stderr.write(
        "\nThe lock could not be installed. If the lines above name torch: its CPU build was found neither on this"
        f"\nmachine (pip's find-links) nor at {TORCH_INDEX}; make one of the two reachable and run this again.\n"
    )
    return False


def run_pips(command: list[str], said: deque[str]) -> bool:
    """Run pip on each part of the lock at once: it uses one core, and no package waits for another. `said` keeps the
    last lines of the part that failed.
    """
    entries = entries_of(LOCK.read_text())
    count = Count(len(entries))
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(PARTS) as pool:
        files = write_parts(entries, Path(scratch))
        ended = list(pool.map(lambda file: run_pip([*command, "-r", str(file)], count), files))
    for code, lines in ended:
        if code != 0:
            said.extend(lines)
    return all(code == 0 for code, _ in ended)


def write_parts(entries: list[str], scratch: Path) -> list[Path]:
    """The lock's entries dealt out to files."""
    files = [scratch / f"part-{number}.lock" for number in range(PARTS)]
    for number, file in enumerate(files):
        file.write_text("\n".join(entries[number::PARTS]) + "\n")
    return files


def entries_of(lock: str) -> list[str]:
    """A package each, with its hashes."""
    return [entry for entry in re.split(r"\n(?=\S)", lock.strip()) if not entry.startswith("#")]


@dataclass
class Count:
    """How many of the lock's packages were found, by all pips together."""

    wanted: int
    found: int = 0


def run_pip(command: list[str], count: Count) -> tuple[int, deque[str]]:
    """Run one pip and say how far all are; gives its exit status and its last lines."""
    said: deque[str] = deque(maxlen=30)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            said.append(line)
            if line.startswith(("Collecting ", "Processing ")):  # the latter: from a directory of this machine
                count.found += 1
                last = count.found == count.wanted
                show(f"{count.found} of {count.wanted} packages found", last=last, now_and_then=count.found % 20 == 0)
            elif line.startswith("Installing collected packages"):
                show("unpacking", last=True)
    return process.returncode, said


def show(text: str, *, last: bool = False, now_and_then: bool = False) -> None:
    """One living line on a terminal, a line now and then elsewhere."""
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\x1b[2K{text}" + ("\n" if last else ""))
    elif last or now_and_then:
        sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
