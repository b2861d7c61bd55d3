"""Ties this process to the one that launched it: a trainer without a launcher would burn a GPU for nobody."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class UnableToTether(Exception):
    """The launcher is gone already."""


def die_with_parent(*, parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends. Linux only; elsewhere nothing happens.

    The launcher must therefore start the trainer from a thread that outlives it. A launcher that died before this call
    sends no signal, hence the check afterwards; `parent_pid` 0 leaves it out.
    """
    before = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() not in (parent_pid or before,):
        raise UnableToTether("the launcher is gone")
