"""Rows as the batches of steps: which rows a step holds, how they share sequences, and their pictures.

All of it is a function of the rows' lengths, the settings and the number of the step, so that no position has
to be stored and any process can prepare any step.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llavar.data.collate import Batch, collate
from llavar.data.pack import first_fit, order
from llavar.data.rows import planned
from llavar.data.vision import VisionSource, vision_of
from llavar.data.workers import Workers
from llavar.errors import ConfigError, ImageError, NotFoundError
from llavar.records import Encoded, Pack

_MULTIPLE = 8
"""Sequences are as long as a multiple of this: matrix products like it."""

Numbers = tuple[int, ...]
"""The row numbers of one pack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedConfig:
    """How rows become batches.

    A step takes ``batch`` rows, computed as ``parts`` micro-batches. ``capacity`` is the most tokens of a
    pack. Without ``packing`` every pack is one row, padded to the longest of its micro-batch (parity with
    the original; also faster where attention over a block mask costs more than padding, as on a CPU).
    ``like_lengths`` sorts the packs of a step by length before it is divided.
    """

    batch: int
    parts: int = 1
    capacity: int = 2048
    packing: bool = True
    like_lengths: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or not 1 <= self.parts <= self.batch:
            raise ConfigError(
                f"batch is {self.batch} and parts {self.parts}; at least one row for each part is needed"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """What an epoch holds: steps, rows, pictures, packs, their tokens, and with padding.

    ``longest`` is the step and the number of the micro-batch that has the most tokens, ``most`` their count.
    """

    steps: int
    rows: int
    pictures: int
    packs: int
    tokens: int
    padded: int
    longest: tuple[int, int]
    most: int

    @property
    def padding(self) -> float:
        """Share of what the model computes on that is padding."""
        return 1 - self.tokens / self.padded


class Feed:
    """The batches of process ``rank`` of ``size``.

    Which rows a step holds, and how they are divided into micro-batches, is a function of the rows' lengths
    and of ``config`` alone; several processes only deal the micro-batches out.
    """

    def __init__(
        self,
        rows: Sequence[Encoded],
        vision: VisionSource,
        config: FeedConfig,
        *,
        pad_id: int,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        if not rows:
            raise ConfigError("there is no row to train on; the rejects say why they were left out")
        if config.parts % size:
            raise ConfigError(
                f"a step has {config.parts} micro-batches and there are {size} processes; change "
                "the batch or the micro-batch so that each of them gets equally many"
            )
        self.rows, self.vision, self.config, self.pad_id = rows, vision, config, pad_id
        self.rank, self.size = rank, size
        self._planned = planned(rows)
        self._ordered: tuple[int, NDArray[np.int64]] | None = None

    @property
    def rows_per_epoch(self) -> int:
        """Rows of an epoch; those of a mixture may be more or fewer than there are."""
        return len(self.rows) if self._planned.mixture is None else len(self._planned.mixture)

    @property
    def steps_per_epoch(self) -> int:
        """The last step of an epoch may be smaller; an epoch never ends inside a step."""
        return -(-self.rows_per_epoch // self.config.batch)

    def batches(self, step: int) -> list[Batch]:
        """Micro-batches of ``step`` that belong to this process: a pure function of it."""
        own = self.layout(step)[self.rank :: self.size]
        return [self.batch(packs) for packs in own]

    def layout(self, step: int) -> list[list[Numbers]]:
        """The packs of every micro-batch of ``step``."""
        packs = self._packs(step)
        return list(_divided(packs, min(self.config.parts, len(packs))))

    def _packs(self, step: int) -> list[Numbers]:
        epoch, within = divmod(step, self.steps_per_epoch)
        first = within * self.config.batch
        chosen = self._order(epoch)[first : first + self.config.batch]
        lengths = dict(zip(chosen.tolist(), self._planned.lengths[chosen].tolist(), strict=True))
        rows = chosen.tolist()
        packs = [(row,) for row in rows]
        if self.config.packing:
            packs = first_fit(rows, lengths, self.config.capacity)
        if self.config.like_lengths:
            packs.sort(key=lambda numbers: sum(lengths[number] for number in numbers))
        return packs

    def epoch_plan(self) -> EpochPlan:
        """What the first epoch holds; later ones differ by the order of their rows."""
        packs = padded = most = 0
        longest = (0, 0)
        for step in range(self.steps_per_epoch):
            for number, part in enumerate(self.layout(step)):
                length = max(sum(int(self._planned.lengths[n]) for n in numbers) for numbers in part)
                area = len(part) * (length + -length % _MULTIPLE)
                packs, padded = packs + len(part), padded + area
                if area > most:
                    longest, most = (step, number), area
        held = self._order(0)
        return EpochPlan(
            steps=self.steps_per_epoch,
            rows=len(held),
            pictures=int(self._planned.pictures[held].sum()),
            packs=packs,
            tokens=int(self._planned.lengths[held].sum()),
            padded=padded,
            longest=longest,
            most=most,
        )

    def batch(self, packs: Sequence[Numbers]) -> Batch:
        """Packs as tensors, with their pictures.

        Raises:
            ImageError, NotFoundError: a picture cannot be had; the message names its row.
        """
        chosen = [Pack(rows=tuple(self.rows[number] for number in numbers)) for numbers in packs]
        rows = [row for pack in chosen for row in pack.rows]
        vision = self._pictures(rows)
        features = self.vision.is_features
        return collate(chosen, pad_id=self.pad_id, vision=vision, is_features=features, multiple=_MULTIPLE)

    def _pictures(self, rows: Sequence[Encoded]) -> Tensor | None:
        try:
            return vision_of(self.vision, [name for row in rows for name in row.images])
        except (ImageError, NotFoundError) as error:
            raise type(error)(
                f"{self._owner(rows)} {error} Repair it, or leave such rows out with --bad-images skip"
            ) from error

    def _owner(self, rows: Sequence[Encoded]) -> str:
        """Which of ``rows`` has the picture that cannot be had."""
        for row in rows:
            try:
                vision_of(self.vision, row.images)
            except (ImageError, NotFoundError):
                return f"the picture of row {row.id!r} cannot be used:"
        return "a picture of the step could not be read the first time:"

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Row numbers in the order of ``epoch``."""
        if self._ordered is None or self._ordered[0] != epoch:
            mixture, lengths = self._planned.mixture, self._planned.lengths
            held = None if mixture is None else mixture.epoch(epoch)
            found = order(
                lengths if held is None else lengths[held],
                self.config.capacity,
                seed=self.config.seed,
                epoch=epoch,
            )
            self._ordered = epoch, found if held is None else held[found]
        return self._ordered[1]


def _divided(packs: Sequence[Numbers], parts: int) -> Iterator[list[Numbers]]:
    """``packs`` in ``parts`` runs of equal length, or one more in the first of them."""
    size, more = divmod(len(packs), parts)
    at = 0
    for part in range(parts):
        end = at + size + (part < more)
        yield list(packs[at:end])
        at = end


class Loader:
    """The batches of step after step, prepared ahead in ``workers`` processes; with 0 when they are wanted.

    What a step holds does not depend on ``workers``. Steps may be asked for in any order; only those that
    follow each other are ready when they are wanted.
    """

    def __init__(self, feed: Feed, workers: int = 0) -> None:
        self._feed, self._count = feed, workers
        self._pool: Workers[int, list[Batch]] | None = None
        self._coming: Iterator[list[Batch]] = iter(())
        self._next = -1
        self._last: int | None = None

    def batches(self, step: int) -> list[Batch]:
        """Micro-batches of ``step``.

        Raises:
            ImageError, NotFoundError: a picture cannot be had; the message names its row.
            LlavarError: a worker died.
        """
        if not self._count:
            return self._feed.batches(step)
        if step != self._next or self._pool is None:
            self.close()
            # Tensors travel between processes as shared memory once this is imported.
            importlib.import_module("torch.multiprocessing")
            self._pool = Workers(self._feed.batches, self._count)
            self._coming = self._pool.results(self._steps(step))
        self._next = step + 1
        try:
            return next(self._coming)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def until(self, last: int) -> Generator[None]:
        """No step from ``last`` on is prepared, and the workers end with the block."""
        self._last = last
        try:
            yield
        finally:
            self.close()

    def _steps(self, first: int) -> Iterator[int]:
        yield from itertools.count(first) if self._last is None else range(first, max(first + 1, self._last))

    def close(self) -> None:
        """End the workers."""
        pool, self._pool = self._pool, None
        self._coming, self._next = iter(()), -1
        if pool is not None:
            pool.close()
