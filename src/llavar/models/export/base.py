"""What every export is made of: the options, what a target does, and what is told when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from llavar.errors import ConfigError
from llavar.models.export.source import Source
from llavar.models.stream import MAX_SHARD_BYTES, Progress


class OutType(StrEnum):
    """How GGUF keeps the large tensors."""

    F32 = "f32"
    F16 = "f16"
    Q8_0 = "q8_0"
    """8 bits and one scale for each 32 weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be said of an export; each target says which of them it takes.

    ``outtype`` None is the target's own choice. ``license``, ``base_models`` and ``datasets`` go into the
    metadata of a card; ``push`` is the repository to upload to, and empty for none.
    """

    outtype: OutType | None = None
    license: str = ""
    base_models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    push: str = ""
    private: bool = False
    max_shard_bytes: int = MAX_SHARD_BYTES

    def __post_init__(self) -> None:
        if self.private and not self.push:
            raise ConfigError("--private says who may see what is uploaded; say --push OWNER/NAME too")

    def said(self) -> frozenset[str]:
        """The options that differ from their defaults, as flags."""
        flags = {
            "--outtype": self.outtype is not None,
            "--license": bool(self.license),
            "--base-model": bool(self.base_models),
            "--dataset": bool(self.datasets),
            "--push": bool(self.push),
            "--private": self.private,
            "--max-shard-bytes": self.max_shard_bytes != MAX_SHARD_BYTES,
        }
        return frozenset(flag for flag, given in flags.items() if given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be exported: the model, how, and the name that the folder will have."""

    source: Source
    options: Options
    name: str
    progress: Progress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was compared after writing, as a sentence for people and as figures for JSON."""

    sentence: str
    figures: dict[str, float | int | None] = field(default_factory=dict[str, "float | int | None"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    """A file of an export: its size in bytes and its sha256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote. ``command`` starts the engine on it, ``pushed`` is a URL or empty."""

    folder: Path
    target: str
    files: tuple[ExportedFile, ...]
    checked: Checked
    command: str
    notes: tuple[str, ...] = ()
    pushed: str = ""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {
            "folder": str(self.folder),
            "to": self.target,
            "bytes": self.size,
            "files": {file.name: {"bytes": file.size, "sha256": file.sha256} for file in self.files},
            "check": self.checked.sentence,
            "figures": self.checked.figures,
            "command": self.command,
            "notes": list(self.notes),
            "pushed": self.pushed or None,
        }


class Target(Protocol):
    """An engine, or a place, to export to. The methods are called in the order in which they stand here."""

    takes: frozenset[str]
    """Flags of :class:`Options` that mean something here; others are refused."""

    def refuse(self, order: Order) -> None:
        """Raise ModelError or ConfigError where the model cannot run there, before anything is written."""
        ...

    def nbytes(self, order: Order) -> int:
        """About how many bytes will be written."""
        ...

    def notes(self, order: Order) -> tuple[str, ...]:
        """What a user must know, in sentences without a full stop."""
        ...

    def write(self, order: Order, aside: Path) -> Mapping[str, str | None]:
        """Write everything but the card into ``aside``; returns the checksums that are known, by file."""
        ...

    def check(self, order: Order, aside: Path) -> Checked:
        """Load what was written and compare it with the source; ModelError where it differs."""
        ...

    def card(self, order: Order, checked: Checked) -> str:
        """The text of ``README.md``."""
        ...

    def command(self, folder: Path) -> str:
        """What to type to use the export in ``folder``."""
        ...
