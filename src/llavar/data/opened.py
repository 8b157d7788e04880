"""Data files of every kind by their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llavar.data import tables
from llavar.data.index import RowSource, open_rows
from llavar.data.mixture import HUB, Entry
from llavar.data.pictures import PictureStore, open_pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A data file, and its pictures where it does not use those of the run.

    ``seconds`` is what indexing took.
    """

    rows: RowSource
    pictures: PictureStore | None
    seconds: float = 0.0


def open_data(entry: Entry, *, folder: Path | None = None) -> Opened:
    """A JSON list, JSONL, Parquet, WebDataset tar, or ``hub:`` dataset; indexed in ``folder`` (the cache).

    Raises:
        LlavarError: it is not there, or none of these.
    """
    own = open_pictures(Path(entry.images), folder=folder) if entry.images else None
    if entry.path.startswith(HUB):
        table, inside = tables.open_hub(entry, folder)
        return Opened(rows=table, pictures=own or inside, seconds=table.seconds)
    path = Path(entry.path)
    if path.suffix == ".parquet":
        table, inside = tables.open_parquet(entry, folder)
        return Opened(rows=table, pictures=own or inside, seconds=table.seconds)
    elif path.suffix == ".tar":
        tar = tables.open_tar(path, folder)
        return Opened(rows=tar, pictures=own or tar.pictures)
    rows = open_rows(path, folder=folder)
    return Opened(rows=rows, pictures=own, seconds=rows.seconds)
