"""What every process of the training benchmark shares: rounds that begin when they are told to.

Imports nothing but Python's own library at the top, since it also runs in the environments of peers. A child
says on its standard output, one JSON object a line, that it is ready and what each round took; it begins a
round when a line comes in. So that libraries cannot speak there, what they print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Rounds:
    """Steps in rounds: the first one, of ``warm`` steps, then ``rounds`` of ``steps`` each.

    :meth:`begin` before the first step and :meth:`step` after each; both wait for the word to go on where a
    round begins. Seconds of a step are from the end of the one before, or from the word; ``processor`` are
    those that this process computed in, on all its threads.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self._out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self._sizes = [settings["warm"], *[settings["steps"]] * settings["rounds"]]
        self._held: list[dict[str, float]] = []
        self._since = (0.0, 0.0)

    @property
    def total(self) -> int:
        """Steps of all rounds."""
        return sum(self._sizes)

    def begin(self, **facts: Any) -> None:
        """Say ``facts`` about this process, and wait."""
        self._say({"ready": facts})
        self._wait()

    def step(self, loss: float, waited: float) -> None:
        """A step with this mean loss is over, of which ``waited`` seconds went into waiting for data."""
        if self.settings["device"] == "cuda":
            import torch

            torch.cuda.synchronize()
        seconds, processor = time.perf_counter() - self._since[0], time.process_time() - self._since[1]
        self._held.append({"seconds": seconds, "processor": processor, "waited": waited, "loss": loss})
        if len(self._held) < self._sizes[0]:
            self._since = (time.perf_counter(), time.process_time())
            return
        self._say({"steps": self._held, "peak": peak(self.settings["device"])})
        self._held = []
        del self._sizes[0]
        if self._sizes:
            self._wait()

    def _wait(self) -> None:
        if not sys.stdin.readline():
            raise SystemExit("the benchmark has ended")
        forget(self.settings["device"])
        self._since = (time.perf_counter(), time.process_time())

    def _say(self, what: dict[str, Any]) -> None:
        print(json.dumps(what), file=self._out, flush=True)


def peak(device: str) -> int:
    """The most bytes since :func:`forget`: on a GPU of torch, else of the process."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines() if _STATUS.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def forget(device: str) -> None:
    """Count the most from now on."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        with suppress(OSError):
            _FORGET.write_text("5", encoding="ascii")


def versions(*names: str) -> dict[str, str]:
    """Of the packages that are installed."""
    found: dict[str, str] = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
