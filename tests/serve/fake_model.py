"""A model that answers by a script, in a thread of its own, and counts what it is asked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image

from llavar.errors import ContextLengthError, LlavarError
from llavar.generate.dialogue import Asked, BusyError, Chance, Finish, Load, OnPiece, Piece


@dataclass
class FakeTicket:
    asked: Asked
    on_piece: OnPiece
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.cancelled.set()


def echo(asked: Asked) -> list[str]:
    """The words of the last turn, and a picture as its size."""
    words: list[str] = []
    for part in asked.dialogue.turns[-1].parts:
        words += part.split() if isinstance(part, str) else [f"[{part.width}x{part.height}]"]
    return [word if at == 0 else f" {word}" for at, word in enumerate(words)]


class FakeModel:
    """Says the words of ``script``, one a token. ``held``: says nothing until :attr:`gate` is set."""

    def __init__(
        self,
        name: str = "fake",
        *,
        script: Callable[[Asked], list[str]] = echo,
        slots: int = 2,
        may_wait: int = 2,
        max_tokens: int = 100,
        held: bool = False,
        endless: bool = False,
        fails: LlavarError | None = None,
    ) -> None:
        self.name, self.max_tokens = name, max_tokens
        self.script, self.slots, self.may_wait, self.endless, self.fails = (
            script,
            slots,
            may_wait,
            endless,
            fails,
        )
        self.gate = threading.Event()
        if not held:
            self.gate.set()
        self.asked: list[Asked] = []
        self.finished: Counter[Finish] = Counter()
        self.open = 0
        self.is_alive = True
        self.closing = False
        self.idle = threading.Event()
        self.idle.set()
        self.begun = threading.Event()
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._tickets: list[FakeTicket] = []

    def submit(self, asked: Asked, on_piece: OnPiece) -> FakeTicket:
        prompt = sum(
            len(part.split()) if isinstance(part, str) else 10
            for turn in asked.dialogue.turns
            for part in turn.parts
        )
        if prompt >= self.max_tokens:
            raise ContextLengthError(
                f"the prompt has {prompt} tokens, and the model takes {self.max_tokens}; shorten it"
            )
        with self._lock:
            if self.closing or not self.is_alive:
                raise BusyError("the engine is closing")
            if self.open >= self.slots + self.may_wait:
                raise BusyError(f"{self.may_wait} requests wait, as many as may", retry_after=1.5)
            self.open += 1
            self.idle.clear()
            self.asked.append(asked)
            self._arrived.notify_all()
            ticket = FakeTicket(asked, on_piece)
            self._tickets.append(ticket)
        threading.Thread(target=self._answer, args=(ticket, prompt), daemon=True).start()
        return ticket

    def wait_for(self, requests: int) -> None:
        """Until it has been asked so often."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.asked) >= requests, 20)

    def _answer(self, ticket: FakeTicket, prompt: int) -> None:
        self.begun.set()
        finish, said = self._say(ticket, prompt)
        with self._lock:
            self.open -= 1
            self.finished[finish] += 1
            self._tickets.remove(ticket)
            if not self.open:
                self.idle.set()
        error = self.fails if finish is Finish.ERROR else None
        ticket.on_piece(Piece(prompt_tokens=prompt, completion_tokens=said, finish=finish, error=error))

    def _say(self, ticket: FakeTicket, prompt: int) -> tuple[Finish, int]:
        words, said = self.script(ticket.asked), 0
        most = min(ticket.asked.max_new_tokens or self.max_tokens, self.max_tokens - prompt)
        while self.endless or said < len(words):
            while not self.gate.wait(0.005):
                if ticket.cancelled.is_set():
                    return Finish.CANCELLED, said
            if ticket.cancelled.is_set():
                return Finish.CANCELLED, said
            if said >= most and not self.endless:
                return Finish.LENGTH, said
            if self.fails is not None and said == 1:
                return Finish.ERROR, said
            word = words[said % len(words)]
            said += 1
            ticket.on_piece(
                Piece(
                    text=word,
                    chances=self._chances(ticket.asked, word),
                    prompt_tokens=prompt,
                    completion_tokens=said,
                )
            )
            if self.endless:
                time.sleep(0.002)
        return Finish.STOP, said

    def _chances(self, asked: Asked, word: str) -> tuple[Chance, ...]:
        if asked.top_logprobs is None:
            return ()
        top = tuple((f"{word}{rank}", -1.0 - rank) for rank in range(asked.top_logprobs))
        return (Chance(text=word, logprob=float("-inf") if word == "never" else -0.5, top=top),)

    def load(self) -> Load:
        return Load(
            running=min(self.open, self.slots),
            waiting=max(0, self.open - self.slots),
            slots=self.slots,
            may_wait=self.may_wait,
            finished=dict(self.finished),
            prompt_tokens=7,
            completion_tokens=5,
            pictures_encoded=3,
            pictures_reused=2,
            prompt_tokens_reused=1,
        )

    def seen(self, image: Image.Image) -> Image.Image:
        return image.resize((8, 8))

    def alive(self) -> bool:
        return self.is_alive

    def close(self, grace: float = 30.0) -> None:
        self.closing = True
        if not self.idle.wait(grace):
            for ticket in list(self._tickets):
                ticket.cancel()
            self.idle.wait(5)
        self.is_alive = False
