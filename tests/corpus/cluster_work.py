"""Stages and makers for tests of the cluster, importable by name on its nodes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from PIL import Image

from llavar.corpus.cluster_node import Done
from llavar.corpus.item import Item
from llavar.corpus.stage import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """No settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """Describes items one by one; leaves a line with the item, its process, and the actor of that."""

    trace: Path
    pause: float = 0.05
    settings: Nothing = Nothing()
    time_limit: float | None = 20.0
    name: ClassVar[str] = "slow"
    version: ClassVar[int] = 1

    def maker(self) -> Slow:
        return self

    def __call__(self) -> Callable[[Item], Outcome]:
        return self.described

    def described(self, item: Item) -> Outcome:
        with self.trace.open("a") as file:
            file.write(f"{item.id} {os.getpid()} {os.getppid()}\n")
        time.sleep(self.pause)
        return replace(item, description=f"slowly, {item.origin.caption}")


def lines(trace: Path) -> list[list[str]]:
    """What is written so far; a line that is being written is left out."""
    text = trace.read_text() if trace.exists() else ""
    return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubling:
    """A maker that works in the actor itself; for a stand-in of Ray, which has no processes."""

    name: str = "doubling"
    device: str = "cpu"
    fails: Exception | None = None

    def __call__(self) -> Callable[[Sequence[int]], Done]:
        if self.fails is not None:
            raise self.fails
        return doubled


def doubled(numbers: Sequence[int]) -> Done:
    return Done(results=tuple(2 * number for number in numbers), seconds=0.001 * len(numbers))


def pictures(folder: Path) -> Path:
    """A recipe for a few pictures, one of them broken."""
    (folder / "pictures").mkdir()
    for number in range(6):
        image = Image.radial_gradient("L").resize((60 + number, 50))
        image.save(folder / "pictures" / f"{number}.png")
    (folder / "pictures" / "broken.png").write_bytes(b"no picture")
    recipe = folder / "recipe.yaml"
    recipe.write_text("source: {folder: pictures}\nshard_rows: 4\nselect: null\n")
    return recipe
