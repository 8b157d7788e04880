"""Engines for tests, importable by name in worker processes. The width of a picture decides what they do."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import ClassVar

from PIL import Image

from llavar.errors import MissingExtraError
from llavar.records import Box, Line

HANGS, DIES, FAILS, EMPTY = 41, 42, 43, 44


class FakeEngine:
    """Reads the picture's own size, in two lines, the lower one first."""

    name: ClassVar[str] = "fake 1"

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        if image.width == HANGS:
            if "FAKE_ENGINE_PID" in os.environ:
                Path(os.environ["FAKE_ENGINE_PID"]).write_text(str(os.getpid()), encoding="utf-8")
            time.sleep(600)
        if image.width == DIES:
            os._exit(7)
        if image.width == FAILS:
            raise RuntimeError("cannot read this")
        if image.width == EMPTY:
            return ()
        width, height = image.size
        upper = Box(left=0, top=0, right=width, bottom=height / 2)
        lower = Box(left=0, top=height / 2, right=width, bottom=height)
        return (
            Line(text=f"tall {height}", box=lower, confidence=0.9),
            Line(text=f"wide {width}", box=upper, confidence=0.95),
        )


class OtherEngine(FakeEngine):
    name: ClassVar[str] = "fake 2"


class AbsentEngine(FakeEngine):
    def __init__(self) -> None:
        raise MissingExtraError("the package 'nothing' is not installed: run  pip install nothing")


class BrokenEngine(FakeEngine):
    """Of the same name: where it is never loaded, nothing was read."""

    def __init__(self) -> None:
        raise ZeroDivisionError("no models")


class DyingEngine(FakeEngine):
    def __init__(self) -> None:
        os._exit(3)
