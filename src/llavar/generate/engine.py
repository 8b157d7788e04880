"""Many conversations at a time with one model in memory: requests join and leave the batch at every token."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self
from weakref import ref

import torch

from llavar import chat, images
from llavar.errors import ConfigError, LlavarError, ModelError
from llavar.generate.base import fingerprint
from llavar.generate.batch import Batch, Ended, said
from llavar.generate.dialogue import Asked, BusyError, Finish, Load, OnPiece, Ticket
from llavar.generate.features import Features, Pixels
from llavar.generate.local import LocalGenerator
from llavar.generate.prefixes import Prefixes
from llavar.generate.prompting import pixels, prepare
from llavar.generate.rows import Row
from llavar.generate.spelling import Speller, special_ids

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

_SMALL = 50_000_000
"""Models below this many parameters answer sooner on one thread: more of them mostly wait for each other."""

_FAILURES = 3
"""As many turns that fail one after the other end the engine."""

_LATELY = 16
"""Pictures that are known again without a look at their pixels, while they are open."""

_RATE, _RECENT = 64, 60.0
"""The rate at which answers end is that of as many last ones, within as many seconds."""


class Engine:
    """Answers of one model, up to ``slots`` at a time; :class:`llavar.generate.dialogue.Answering`.

    One thread does all the work. In each of its turns it lets go of what has ended or was cancelled, takes in
    requests that wait (prompts of up to ``prefill_tokens`` tokens together, but at least one, so that running
    answers do not stall), and makes one token of each. A greedy answer is that of
    :meth:`LocalGenerator.answer` alone, whatever runs beside it, but for tokens that are equally likely
    within the rounding of sums.

    A picture is encoded once for the questions that come soon after one another (the last ``pictures`` are
    kept). A conversation that goes on is taken up where it ended: keys and values of answers that ended are
    kept, up to ``prefix_bytes``; 0 turns that off, and the stock class of transformers does without it.
    """

    def __init__(
        self,
        generator: LocalGenerator,
        *,
        slots: int = 16,
        may_wait: int = 64,
        prefill_tokens: int | None = None,
        prefix_bytes: int = 512 * 2**20,
        pictures: int = 64,
    ) -> None:
        """
        Raises:
            ConfigError: there is no slot, or no place to wait.
        """
        if slots < 1 or may_wait < 1:
            raise ConfigError(
                f"an engine with {slots} slots and {may_wait} places to wait; give at least 1 each"
            )
        self._generator, self._tokenizer, self._setup = generator, generator.tokenizer, generator.setup
        self._model = generator.model
        self._slots, self._may_wait = slots, may_wait
        on_gpu = self._model.device.type != "cpu"
        self._prefill_tokens = prefill_tokens or (4096 if on_gpu else 512)
        self._features = Features(self._model, self._model.device, remember=pictures)
        self._prefixes = Prefixes(prefix_bytes)
        self._batch = Batch(self._model, self._tokenizer, self._features, self._prefixes)
        self._special = special_ids(self._tokenizer)
        self._stops = chat.stop_strings(self._setup.template)

        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._coming: list[Row] = []  # their prompts are being run
        self._dropped: list[Row] = []  # cancelled while they waited
        self._closing = self._abort = False
        self._failed: str = ""
        self._finished = dict.fromkeys(Finish, 0)
        self._ends: deque[float] = deque(maxlen=_RATE)
        self._lately: deque[tuple[ref[Image], tuple[str, Pixels]]] = deque(maxlen=_LATELY)
        self._prompt_tokens = self._completion_tokens = 0
        self._thread = threading.Thread(target=self._run, name=f"engine of {generator.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(0.0 if kind else 30.0)

    # --- from any thread --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._generator.name

    @property
    def max_tokens(self) -> int:
        return self._setup.max_positions

    def submit(self, asked: Asked, on_piece: OnPiece) -> Ticket:
        """Queue one answer. It makes the prompt's ids and the fingerprints of its pictures, which for large
        pictures takes some hundredths of a second; it does not wait.

        Raises:
            BusyError: the queue is full, or the engine is closing.
            DataError: the prompt is longer than the model takes, or holds a placeholder of pictures.
            ModelError: the engine has failed for good.
        """
        with self._changed:
            self._check_open()
        row = self._row(asked, on_piece)
        with self._changed:
            self._check_open()
            self._waiting.append(row)
            self._changed.notify_all()
        return row

    def load(self) -> Load:
        with self._changed:
            return Load(
                running=len({*self._batch.rows, *self._coming}),
                waiting=len(self._waiting),
                slots=self._slots,
                may_wait=self._may_wait,
                finished=dict(self._finished),
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self._completion_tokens,
                pictures_encoded=self._features.encoded,
                pictures_reused=self._features.reused,
                prompt_tokens_reused=self._batch.reused,
            )

    def seen(self, image: Image) -> Image:
        """The picture as the model sees it, RGB, ``size`` pixels on each side.

        Where it sees a picture in tiles, the whole of it with the grid of its tiles on the right.
        """
        setup = self._setup
        seen = images.views(
            image, tiles=setup.tiles, transform=setup.transform, size=setup.size, norm=setup.norm
        )
        return images.montage(seen, setup.tiles)

    def alive(self) -> bool:
        return self._thread.is_alive() and not self._failed

    def close(self, grace: float = 30.0) -> None:
        """Take nothing new, finish what runs and waits for up to ``grace`` seconds, cancel the rest."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is self._thread:
            return
        self._thread.join(grace)
        with self._changed:
            self._abort = True
            self._changed.notify_all()
        self._thread.join()

    def _check_open(self) -> None:
        if self._failed:
            raise ModelError(self._failed)
        if self._closing:
            raise BusyError("the server is shutting down and takes no more requests; ask another one", 5.0)
        if len(self._waiting) >= self._may_wait:
            seconds = self._retry_after()
            raise BusyError(
                f"{len(self._waiting)} requests wait already, which is the limit; "
                f"ask again in {seconds:.0f} seconds",
                seconds,
            )

    def _retry_after(self) -> float:
        """Whole seconds, 1 to 60, until half of those that wait have had their turn at the present rate."""
        now = time.monotonic()
        recent = [end for end in self._ends if end > now - _RECENT]
        if not recent:
            return 1.0
        rate = len(recent) / max(now - recent[0], 1e-3)
        return float(min(60, max(1, math.ceil(len(self._waiting) / 2 / rate))))

    def _row(self, asked: Asked, on_piece: OnPiece) -> Row:
        prepared = prepare(asked.dialogue, self._setup, self._tokenizer)
        known = [self._known(picture) for picture in prepared.pictures]
        room = self.max_tokens - len(prepared.ids)
        return Row(
            asked,
            prepared,
            [name for name, _ in known],
            dict(known),
            Speller(self._tokenizer, self._special, (*self._stops, *asked.stop)),
            limit=room if asked.max_new_tokens is None else min(room, asked.max_new_tokens),
            on_piece=on_piece,
            freed=self._cancelled,
        )

    def _known(self, image: Image) -> tuple[str, Pixels]:
        """The fingerprint of a picture, and its features if they are at hand, or its pixels.

        In the caller's thread, so that a request that waits holds no picture of full size. A picture that
        comes again at once, as for several answers to one question, costs this work once.
        """
        with self._changed:
            for picture, known in self._lately:
                if picture() is image:
                    return known
        name = fingerprint(image)
        made: Pixels | None = self._features.kept(name)
        if made is None:
            array = pixels(image, self._setup)
            made = lambda: array  # noqa: E731
        known = (name, made)
        with self._changed:
            alive = [entry for entry in self._lately if entry[0]() is not None]
            self._lately = deque([*alive, (ref(image), known)], maxlen=_LATELY)
        return known

    def _cancelled(self, row: Row) -> None:
        """Called for a row that is cancelled: one that waits gives its place back at once."""
        with self._changed:
            if row in self._waiting:
                self._waiting.remove(row)
                self._dropped.append(row)
                self._changed.notify_all()

    # --- in the engine's own thread ---------------------------------------------------------------------

    def _run(self) -> None:
        if self._generator.parameters < _SMALL:
            torch.set_num_threads(1)
        failures = 0
        while self._awaited():
            try:
                self._turn()
                failures = 0
            except Exception as error:  # noqa: BLE001 - the next requests may fare better
                failures += not isinstance(error, torch.OutOfMemoryError)  # which passes
                _log.exception("a turn of the engine failed")
                self._end_all([*self._batch.rows, *self._coming], Finish.ERROR, said(error))
                self._batch.clear()
                self._prefixes.clear()
                self._coming = []
                if failures == _FAILURES:
                    self._failed = (
                        f"the model has failed {failures} times in a row ({type(error).__name__}) and "
                        "answers no more; see the server's log and restart it"
                    )
                    break
        error = ModelError(self._failed) if self._failed else None
        with self._changed:
            self._closing = True
            rest = [*self._batch.rows, *self._dropped, *self._waiting]
            self._waiting.clear()
            self._dropped.clear()
        self._end_all(rest, Finish.ERROR if error else Finish.CANCELLED, error)
        self._batch.clear()

    def _awaited(self) -> bool:
        """Wait until there is something to do; whether there is, and the engine is not to end."""
        with self._changed:
            while not (self._waiting or self._batch.rows or self._dropped or self._closing):
                self._changed.wait()
            return not self._abort and bool(self._waiting or self._batch.rows or self._dropped)

    def _turn(self) -> None:
        batch = self._batch
        with self._changed:
            dropped, self._dropped = self._dropped, []
        self._end_all(dropped, Finish.CANCELLED)
        cancelled = [Ended(row=row, finish=Finish.CANCELLED) for row in batch.rows if row.cancelled.is_set()]
        batch.let_go(cancelled)
        self._tell(cancelled)
        failed, back = batch.take_in(self._next_in())
        self._tell(failed)
        with self._changed:
            self._waiting.extendleft(reversed(back))
            self._coming = []
        if not batch.rows:
            return
        self._tell(batch.choose())
        for row in batch.rows:
            row.tell()
        self._tell(batch.step())

    def _next_in(self) -> list[Row]:
        """Requests that come into the batch now, in the order in which they were made."""
        chosen: list[Row] = []
        tokens = 0
        with self._changed:
            free = self._slots - len(self._batch.rows) if self._batch.is_open else 0
            while self._waiting and len(chosen) < free:
                tokens += len(self._waiting[0].ids)
                if chosen and tokens > self._prefill_tokens and not self._batch.closed:
                    break
                chosen.append(self._waiting.popleft())
            self._coming = chosen
        return chosen

    def _end_all(self, rows: Sequence[Row], finish: Finish, error: LlavarError | None = None) -> None:
        self._tell([Ended(row=row, finish=finish, error=error) for row in rows])

    def _tell(self, ended: Sequence[Ended]) -> None:
        for end in ended:
            if end.row.ended:
                continue
            with self._changed:
                self._finished[end.finish] += 1
                self._prompt_tokens += len(end.row.ids)
                self._completion_tokens += len(end.row.made)
                self._ends.append(time.monotonic())
            end.row.end(end.finish, end.error)
