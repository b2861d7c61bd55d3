"""Makes the base model and the sentence encoder of a bare machine, once, where none is configured."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

from config.processes import UnableToRun


def ensure_models(*, tell: Callable[[str], None]) -> None:
    """Build what the default paths lack; a configured base or encoder is left alone. Raises UnableToRun."""
    models = Path(settings.MODELS_DIR)
    wanted = [Path(path) for path in (settings.BASE_MODEL, settings.ENCODER_MODEL) if Path(path).is_relative_to(models)]
    if all((path / "done.json").is_file() for path in wanted):
        return
    tell("making the base model and the encoder (once, about a minute)")
    made = subprocess.run(
        [sys.executable, "-m", "training.lora.starter_models", "--out", str(models)],
        cwd=settings.ROOT_DIR,
        capture_output=True,
    )
    if made.returncode != 0:
        raise UnableToRun(f"the models were not made: {made.stdout.decode(errors='replace')[-300:]}")
