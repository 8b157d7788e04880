"""What holds while a job runs: how it may be ended from outside, and in which order torch sums."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Generator
from types import FrameType

import torch

from llavar.train.world import World


@contextlib.contextmanager
def interruptible(world: World) -> Generator[None]:
    """A batch system's SIGTERM ends a run as Ctrl-C does. Several processes have their own way."""
    if world.size > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def determinism(wanted: bool) -> Generator[None]:
    """On a GPU some sums are done in any order unless torch is told otherwise; on a CPU none is."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:  # read when the first product is computed
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted or before, warn_only=True)
    kernels = torch.backends.cuda
    fused = (kernels.flash_sdp_enabled(), kernels.mem_efficient_sdp_enabled())
    if wanted and torch.cuda.is_available():  # where torch only warns, their gradients keep their free order
        kernels.enable_flash_sdp(False)
        kernels.enable_mem_efficient_sdp(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        kernels.enable_flash_sdp(fused[0])
        kernels.enable_mem_efficient_sdp(fused[1])
