# pyright: basic
"""Parquet files of frozen dataclasses: the columns are the fields, nested records are structs.

Equal rows give equal bytes (with the same version of pyarrow), which is what the runner of the corpus relies
on. Files are written aside and renamed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import types
import typing
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from llavar.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

Row = TypeVar("Row")

_READ_AT_ONCE = 2000


class Table(Generic[Row]):
    """Reads and writes rows of one dataclass."""

    def __init__(self, row: type[Row]) -> None:
        _require()
        self._row, self._adapter = row, TypeAdapter(row)
        self._schema = _schema(row)

    def write(self, path: Path, rows: Sequence[Row]) -> None:
        """Replace ``path`` by a file of ``rows``."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(
            [self._adapter.dump_python(row, mode="json") for row in rows], schema=self._schema
        )
        aside = path.with_name(path.name + ".part")
        with aside.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    def read(self, path: Path) -> list[Row]:
        """All rows of a file.

        Raises:
            DataError: it is no Parquet file, or not of these rows.
        """
        return [row for rows in self.batches(path) for row in rows]

    def batches(self, path: Path, size: int = _READ_AT_ONCE) -> Iterator[list[Row]]:
        """Rows in groups of at most ``size``, so that a long file never lies in memory as a whole."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=size):
                    yield [self._adapter.validate_python(row) for row in batch.to_pylist()]
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is no Parquet file that can be read ({error}); make it anew") from error
        except ValidationError as error:
            raise DataError(
                f"{path} holds no rows of {self._row.__name__} ({error.error_count()} faults, the first in "
                f"{error.errors()[0]['loc']}); it is of another version: make it anew"
            ) from error


def plain_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of anybody's Parquet file, by the names of its columns.

    Raises:
        DataError: it is no Parquet file that can be read.
    """
    _require()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_READ_AT_ONCE):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file that can be read ({error}); get it again") from error


def _require() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError(
            "a corpus is kept in Parquet files, which need the package 'pyarrow': "
            "run  pip install 'llavar[ocr]'"
        )


@cache
def _schema(row: type) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([pa.field(name, kind) for name, kind in _fields(row)])


def _fields(row: type) -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(row)
    return [(field.name, _arrow(hints[field.name])) for field in dataclasses.fields(row)]


def _arrow(hint: Any) -> Any:
    """The Arrow type of a field; None is a missing value of it."""
    import pyarrow as pa

    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (kind,) = [part for part in typing.get_args(hint) if part is not types.NoneType]
        return _arrow(kind)
    if typing.get_origin(hint) is tuple:
        kinds = {part for part in typing.get_args(hint) if part is not Ellipsis}
        (kind,) = kinds  # of one type throughout: a list in Parquet
        return pa.list_(_arrow(kind))
    if dataclasses.is_dataclass(hint):
        return pa.struct(_fields(typing.cast("type", hint)))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return pa.string()
    return {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}[hint]
