"""Where things lie on this machine when the environment does not say otherwise."""

from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def state_dir(environ: Mapping[str, str]) -> Path:
    """The directory of everything that is made at run time: database files, spool, artifacts, models."""
    return Path(environ.get("STATE_DIR") or ROOT / ".state").resolve()
