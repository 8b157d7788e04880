"""Work for tests of the crew, importable by name in worker processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llavar.errors import MissingExtraError


@dataclass(frozen=True, kw_only=True)
class Doubling:
    """Doubles numbers; negative ones misbehave. ``folder`` remembers who was here."""

    folder: str = ""
    loads: str = "well"
    name: str = "doubling"

    def __call__(self) -> Callable[[int], object]:
        if self.loads == "missing":
            raise MissingExtraError("the package 'nothing' is not installed: run  pip install nothing")
        if self.loads == "broken":
            raise ZeroDivisionError("no models")
        if self.loads == "dead":
            os._exit(3)
        return self.doubled

    def doubled(self, number: int) -> object:
        if number == -1:
            time.sleep(600)
        if number == -2:
            os._exit(7)
        if number == -3:
            raise RuntimeError("odd")
        if number == -4:
            return lambda: None  # does not pickle
        if number == -5:
            # Dies once, as if killed from outside, and works when it is tried again.
            once = Path(self.folder) / "died"
            if not once.exists():
                once.touch()
                os._exit(9)
        return 2 * number
