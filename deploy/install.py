"""Makes the virtual environment from the lock file: python3.11 deploy/install.py [DIRECTORY]

Nothing is resolved here: what is installed is exactly what requirements.lock names, hashes included. The student engine
needs PyTorch's CPU build, which lies on the machine, or comes from PyTorch's own package index; both are tried.
"""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
MARK = ".installed"


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
    if not (home / "bin" / "python").exists():
        venv.create(home, with_pip=True)
    if not install(home / "bin" / "python"):
        return 1
    mark.write_text(digest)
    return 0


def install(python: Path) -> bool:
    """Install the lock, first with what this machine's pip finds, then with PyTorch's index beside it."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    pip += ["-r", str(LOCK)]  # bytecode is written as it is used: most of these packages' files never are
    for extra in ([], ["--extra-index-url", TORCH_INDEX]):
        done = subprocess.run([*pip, *extra], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return True
    sys.stderr.write(done.stderr[-2000:])
    sys.stderr.write(
        "\nThe lock could not be installed. If the lines above name torch: its CPU build was found neither on this"
        f"\nmachine (pip's find-links) nor at {TORCH_INDEX}; make one of the two reachable and run this again.\n"
    )
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
