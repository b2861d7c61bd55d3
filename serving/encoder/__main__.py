"""Starts the encoder: ARTIFACTS_CACHE=DIR python -m serving.encoder --port N --model DIR (below STATE_DIR if unset)"""

import argparse
import os
import sys
from pathlib import Path

import torch
import uvicorn
from transformers.utils import logging

from serving.encoder.app import EncoderApp
from training.lora.embed import Embedder

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Load the sentence encoder and serve until told to stop; returns the exit code."""
    parser = argparse.ArgumentParser(description="Serve embeddings' verdicts.")
    parser.add_argument("--host", default="127.0.0.1", help="the private address of a container")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True, help="directory of the sentence encoder")
    options = parser.parse_args(arguments)
    state = Path(os.environ.get("STATE_DIR") or ROOT / ".state")
    cache = Path(os.environ.get("ARTIFACTS_CACHE") or state / "artifacts-cache").resolve()
    if not cache.parent.is_dir():
        parser.error("ARTIFACTS_CACHE must name the directory that adapters are loaded from")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)  # one query is too small to share out; more encoders use more cores
    app = EncoderApp(embedder=Embedder(options.model), cache=cache)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
