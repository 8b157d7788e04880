"""Several data files as one: how much of each an epoch holds, as a pure function of seed and epoch.

An entry is written ``PATH`` or ``PATH:weight=0.5,cap=10000,epochs=2``. Of ``n`` usable rows, ``cap`` keeps a
fixed sample; ``epochs`` sees each of them so many times in one epoch of the mixture; ``weight`` scales that,
so that 0.5 takes half of them and goes on with the other half in the next epoch. All together
``round(weight * epochs * min(cap, n))`` rows an epoch.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from llavar.data.shuffle import Draws, shuffled
from llavar.errors import ConfigError, NotFoundError

HUB = "hub:"
"""Begins the name of a dataset that is read through ``datasets``: a hub id, or a folder."""

_OPTIONS = re.compile(r"[a-z]+=[^,:]*(,[a-z]+=[^,:]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One data file of a mixture.

    ``images`` are its own pictures (a folder, tar or zip). ``split`` and ``subset`` choose within a hub
    dataset; ``id``, ``image``, ``conversations``, ``question`` and ``answer`` name columns of tables that
    call them otherwise.
    """

    path: str
    weight: float = 1.0
    cap: int = 0
    epochs: int = 1
    images: str = ""
    split: str = ""
    subset: str = ""
    id: str = ""
    image: str = ""
    conversations: str = ""
    question: str = ""
    answer: str = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("an entry of the data names no file; give its path")
        if not (math.isfinite(self.weight) and 0 < self.weight <= 1000):
            raise ConfigError(f"the weight of {self.path} is {self.weight}; give more than 0, at most 1000")
        if self.cap < 0 or not 1 <= self.epochs <= 1000:
            raise ConfigError(
                f"{self.path} has cap={self.cap} and epochs={self.epochs}; cap is at least 1 (0: no limit), "
                "epochs 1 to 1000"
            )
        if bool(self.question) != bool(self.answer):
            raise ConfigError(f"{self.path} names one column of question and answer; name both")

    def __str__(self) -> str:
        """As :func:`parse` reads it."""
        said = [
            f"{name}={quote(str(value), safe='/._+- ')}"
            for name, value, usual in _values(self)
            if value != usual
        ]
        return self.path + (":" + ",".join(said) if said else "")

    def absolute(self, below: Path | None = None) -> Entry:
        """The same with whole paths where they exist, so that it holds from any folder."""
        return replace(self, path=_whole(self.path, below), images=_whole(self.images, below))


def _values(entry: Entry) -> list[tuple[str, object, object]]:
    return [(f.name, getattr(entry, f.name), f.default) for f in fields(Entry) if f.name != "path"]


def _whole(name: str, below: Path | None) -> str:
    if not name:
        return name
    hub = HUB if name.startswith(HUB) else ""
    path = (below or Path()) / name.removeprefix(HUB)
    return hub + str(path.absolute()) if path.exists() else name


def parse(text: str) -> Entry:
    """An entry as it is written on the command line; ``%2C`` is a comma in a value.

    Raises:
        ConfigError: an option is none, or has a value that cannot be.
    """
    path, colon, options = text.rpartition(":")
    if not colon or not _OPTIONS.fullmatch(options) or Path(text).exists():
        return Entry(path=text)
    pairs = (option.partition("=") for option in options.split(","))
    return _entry({"path": path} | {name: unquote(value) for name, _, value in pairs}, path)


def _entry(given: dict[str, Any], where: str) -> Entry:
    kinds = {f.name: f.type for f in fields(Entry)}
    for name, value in given.items():
        kind = {"float": float, "int": int}.get(str(kinds.get(name)), str)
        if name not in kinds:
            known = ", ".join(sorted(kinds))
            raise ConfigError(f"{where} has an option {name!r}; data files have {known}")
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError
            given[name] = kind(value)
        except (ValueError, OverflowError):
            raise ConfigError(f"{where} has {name}={value!r:.80}; give {_A[kind]}") from None
    return Entry(**given)


_A = {float: "a number", int: "a whole number", str: "text"}


def read_mixture(path: Path) -> tuple[Entry, ...]:
    """The entries of a mixture file: a JSON list of objects with the fields of :class:`Entry`.

    Paths in it are meant from its own folder.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no list of entries.
    """
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFoundError(f"there is no mixture file at {path}; check the path") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON ({error}); write a list of objects with a path each") from None
    if not isinstance(document, list) or not document:
        raise ConfigError(f'{path} is no list of data files; write [{{"path": ...}}, ...]')
    entries: list[Entry] = []
    for number, given in enumerate(cast("list[object]", document), start=1):
        where = f"entry {number} of {path}"
        if not isinstance(given, dict) or "path" not in given:
            raise ConfigError(f'{where} names no path; write {{"path": ...}}')
        entries.append(_entry(dict(cast("dict[str, Any]", given)), where).absolute(path.parent))
    return tuple(entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows ``first`` to ``first + rows`` of all, and how an epoch takes them."""

    first: int
    rows: int
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Which of all rows an epoch holds; the count is the same in every epoch."""

    parts: tuple[Part, ...]
    seed: int = 0

    def __len__(self) -> int:
        return sum(_draws(part) for part in self.parts)

    def epoch(self, number: int) -> NDArray[np.int64]:
        """Row numbers of epoch ``number``, source by source; those seen twice stand twice."""
        return np.concatenate(
            [np.empty(0, np.int64), *(self._drawn(place, number) for place in range(len(self.parts)))]
        )

    def _drawn(self, place: int, epoch: int) -> NDArray[np.int64]:
        part = self.parts[place]
        kept = np.arange(part.rows)
        if _kept(part) < part.rows:
            rng = random.Random(f"cap:{self.seed}:{place}")
            kept = np.array(sorted(rng.sample(range(part.rows), _kept(part))))
        whole, more = divmod(_draws(part), max(1, len(kept)))
        drawn = [kept] * whole
        if more:
            walk = shuffled(np.arange(len(kept)), Draws(f"weight:{self.seed}:{place}"))
            at = (epoch * more + np.arange(more)) % len(kept)
            drawn.append(kept[np.sort(walk[at])])
        return np.concatenate([np.empty(0, np.int64), *drawn]) + part.first


def _kept(part: Part) -> int:
    return min(part.entry.cap or part.rows, part.rows)


def _draws(part: Part) -> int:
    return round(part.entry.weight * part.entry.epochs * _kept(part))


def mix(counts: Sequence[int], entries: Sequence[Entry], seed: int = 0) -> Mixture:
    """The mixture of sources with so many usable rows each.

    Raises:
        ConfigError: a weight takes no row at all of a source that has some.
    """
    firsts = np.concatenate([[0], np.cumsum(counts)])
    parts = tuple(
        Part(first=int(first), rows=count, entry=entry)
        for first, count, entry in zip(firsts, counts, entries, strict=False)
    )
    for part in parts:
        if part.rows and not _draws(part):
            raise ConfigError(
                f"weight={part.entry.weight} takes none of the {_kept(part)} rows of {part.entry.path}; "
                "raise it, or leave the file out"
            )
    return Mixture(parts=parts, seed=seed)
