"""The rows that are continued together: they come with their prompts, get a token each, and leave."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llavar.errors import LlavarError, ModelError
from llavar.generate.dialogue import Finish
from llavar.generate.features import Features
from llavar.generate.local import left_padded
from llavar.generate.prefixes import Prefixes, common
from llavar.generate.rows import Row, chances, choose
from llavar.models import steps
from llavar.models.past import Past
from llavar.models.tokenizer import TextTokenizer

_log = logging.getLogger(__name__)

_WORTH = 3
"""What was computed before is taken up again where it is at least this part (a third) of a prompt."""

_WASTE = 1.25
"""Prompts are run together while padding makes them at most as much longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a row ended."""

    row: Row
    finish: Finish
    error: LlavarError | None = None


class Batch:
    """Rows of one model. Of one thread."""

    def __init__(self, model: Any, tokenizer: TextTokenizer, features: Features, prefixes: Prefixes) -> None:
        self._model, self._tokenizer, self._end = model, tokenizer, tokenizer.eos_id
        self._features, self._prefixes = features, prefixes
        self._running: steps.Running | None = None
        self._next: list[int] = []
        self.rows: list[Row] = []
        self.reused = 0
        """Tokens of prompts that were not computed again."""
        self.closed = False
        """Whether the model's rows have turned out not to be joinable: they must begin together."""

    @property
    def is_open(self) -> bool:
        """Whether requests may come now."""
        return self._running is None or self._running.joinable

    def clear(self) -> None:
        """Drop all rows, as where what was computed of them can no longer be trusted."""
        self._running, self.rows, self._next = None, [], []

    @torch.inference_mode()
    def take_in(self, rows: Sequence[Row]) -> tuple[list[Ended], list[Row]]:
        """Run the prompts of ``rows`` and let them join.

        Gives the rows for which that fails, and those that must wait until no other runs.
        """
        failed: list[Ended] = []
        fresh: list[Row] = []
        if self.closed:
            return (self._tried(rows, None) if rows else []), []
        for row in rows:
            try:
                before = self._before(row)
            except torch.OutOfMemoryError:
                before = None
            if before is None:
                fresh.append(row)
            else:
                failed += self._tried([row], before)
        back: list[Row] = []
        for group in _alike(fresh):
            if self.is_open:
                failed += self._tried(group, None)
            else:
                back += group
        return failed, back

    @torch.inference_mode()
    def choose(self) -> list[Ended]:
        """A token for each row. Those that end with it leave; :meth:`step` goes on with the others."""
        assert self._running is not None
        logits = self._running.logits
        tokens = choose(self.rows, logits)
        found = chances(self.rows, tokens, logits, self._tokenizer)
        ended: list[Ended] = []
        for row, token, chance in zip(self.rows, tokens, found, strict=True):
            if token is None:
                ended.append(Ended(row=row, finish=Finish.ERROR, error=_numberless()))
            elif (finish := row.take(token, self._end, chance)) is not None:
                ended.append(Ended(row=row, finish=finish))
        self._next = [-1 if token is None else token for token in tokens]
        self.let_go(ended)
        return ended

    @torch.inference_mode()
    def step(self) -> list[Ended]:
        """Compute what follows the tokens chosen. Where memory does not suffice, the last rows must go."""
        failed: list[Ended] = []
        while self._running is not None:
            try:
                self._running.step(torch.tensor(self._next, device=self._model.device))
                break
            except torch.OutOfMemoryError as error:
                if not self._running.repeatable:
                    raise
                failed.append(Ended(row=self.rows[-1], finish=Finish.ERROR, error=said(error)))
                self.let_go(failed[-1:])
        return failed

    @torch.inference_mode()
    def let_go(self, ended: Sequence[Ended]) -> None:
        """Rows leave. What was computed of those that were in order is kept for conversations that go on."""
        if not ended:
            return
        assert self._running is not None
        gone = {id(end.row) for end in ended if end.finish is not Finish.ERROR}
        for place, row in enumerate(self.rows):
            if id(row) in gone and self._prefixes.limit:
                self._keep_prefix(place, row)
        gone |= {id(end.row) for end in ended}
        stay = _closed_up([id(row) not in gone for row in self.rows])
        if not stay:
            self.clear()
            return
        self._running.keep(torch.tensor(stay, device=self._model.device))
        self.rows = [self.rows[place] for place in stay]
        self._next = [self._next[place] for place in stay] if self._next else []

    def _keep_prefix(self, place: int, row: Row) -> None:
        assert self._running is not None
        try:
            past = self._running.row(place)
        except torch.OutOfMemoryError:
            self._prefixes.clear()  # memory is wanted elsewhere
            return
        if past is not None:
            self._prefixes.add(row.all_keys[: past.length], past)

    # --- prompts ----------------------------------------------------------------------------------------

    def _before(self, row: Row) -> Past | None:
        """What was computed of the beginning of a prompt by one that ended or runs, if it is worth it."""
        if not self._prefixes.limit:
            return None
        found = self._prefixes.find(row.keys)
        longest = 0 if found is None else found[1]
        running = -1
        for place, other in enumerate(self.rows):
            shared = common(other.keys, row.keys)
            if shared > longest:
                running, longest = place, shared
        longest = min(longest, len(row.ids) - 1)  # the last one gives the first logits
        longest = next((start for start, end in row.places if start < longest < end), longest)
        if longest * _WORTH < len(row.ids):
            return None
        if running < 0:
            return None if found is None else found[0].cut(longest)
        assert self._running is not None
        past = self._running.row(running)
        return None if past is None else past.cut(longest)

    def _tried(self, rows: Sequence[Row], before: Past | None) -> list[Ended]:
        """Run prompts together; one by one where that fails, so that it costs only the one that is broken."""
        try:
            self._begin(rows, before)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            if len(rows) > 1 or before is not None:
                return [ended for row in rows for ended in self._tried([row], None)]
            if not isinstance(error, LlavarError):
                _log.exception("a prompt could not be run")
            return [Ended(row=rows[0], finish=Finish.ERROR, error=said(error))]
        return []

    def _begin(self, rows: Sequence[Row], before: Past | None) -> None:
        known = 0 if before is None else before.length
        prompts = {row.keys.tobytes(): row for row in rows}  # equal ones are run once
        ids, mask = left_padded([row.ids[known:] for row in prompts.values()], 0)
        names = [name for row in prompts.values() for name in row.names_after(known)]
        pixels = {name: made for row in rows for name, made in row.pixels.items()}
        seen, device = self._features.of(names, pixels), self._model.device
        come = steps.begin(self._model, ids.to(device), mask.to(device), seen, before)
        if len(prompts) < len(rows):
            places = {key: place for place, key in enumerate(prompts)}
            come.keep(torch.tensor([places[row.keys.tobytes()] for row in rows], device=device))
        if self._running is None:
            self._running = come
        elif self._running.joinable:
            self._running.join(come)
        else:  # one by one, after they failed together
            raise ModelError("the request came beside another that this model cannot go on with; ask again")
        self.closed = not self._running.joinable
        self.rows = [*self.rows, *rows]
        self.reused += known


def said(error: BaseException) -> LlavarError:
    """What went wrong, in a sentence for whoever asked."""
    if isinstance(error, LlavarError):
        return error
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return ModelError(
            "the device has not enough memory for this request now; ask again, or give fewer slots"
        )
    return ModelError(
        f"the model failed on this request ({type(error).__name__}); the server's log says more"
    )


def _numberless() -> LlavarError:
    return ModelError(
        "the model computed values that are no numbers; its weights are damaged, or need another number "
        "format than float16"
    )


def _alike(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Groups of prompts of similar length, the shortest first."""
    group: list[Row] = []
    tokens = 0
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if group and len(row.ids) * (len(group) + 1) > _WASTE * (tokens + len(row.ids)):
            yield group
            group, tokens = [], 0
        group.append(row)
        tokens += len(row.ids)
    if group:
        yield group


def _closed_up(stays: Sequence[bool]) -> list[int]:
    """Which old place each new one takes: rows stay where they are, and the last ones fill the gaps."""
    count = sum(stays)
    last = [place for place in range(count, len(stays)) if stays[place]]
    return [place if stays[place] else last.pop() for place in range(count)]
