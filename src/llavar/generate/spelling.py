"""An answer as text while it is made: nothing is handed out that a later token could change or take back."""

from __future__ import annotations

from collections.abc import Sequence

from llavar.models.tokenizer import TextTokenizer

_UNREADABLE = "\ufffd"


def special_ids(tokenizer: TextTokenizer) -> frozenset[int]:
    """The tokens that decoding leaves out."""
    added = tokenizer.backend.get_added_tokens_decoder()
    return frozenset(index for index, token in added.items() if token.special)


class Speller:
    """Text of one answer. The pieces that :meth:`take` gives, joined, are what ``chat.clean_answer`` makes of
    all tokens: cut at the first of ``stops``, without white space around it.
    """

    def __init__(self, tokenizer: TextTokenizer, special: frozenset[int], stops: Sequence[str]) -> None:
        self._tokenizer, self._special = tokenizer, special
        self._stops = [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._window, self._read = 0, 0  # ids from _window on are decoded; up to _read their text is known
        self._held = ""
        self._begun = False
        self.length = 0
        """Characters known so far, white space and those held back included."""
        self.cut: int | None = None
        """Where a stop string began, in the same count; None if none has come."""

    def add(self, token: int) -> bool:
        """Take one more token; whether a stop string is complete with it."""
        if token not in self._special:
            self._ids.append(token)
            self._extend(whole=False)
        return self.cut is not None

    def take(self) -> str:
        """What no later token can change: no half of a character, no beginning of a stop string."""
        safe = len(self._held) - self._partial()
        text = self._held[:safe]
        if not self._begun:
            text = text.lstrip()
            self._held = text + self._held[safe:]
        text = text.rstrip()  # an answer may end here
        self._held = self._held[len(text) :]
        self._begun = self._begun or bool(text)
        return text

    def finish(self) -> str:
        """The rest. A character that lacks bytes is a replacement character."""
        if self.cut is None:
            self._extend(whole=True)
        text, self._held = self._held.rstrip(), ""
        return text if self._begun else text.lstrip()

    def _extend(self, *, whole: bool) -> None:
        """Decode what is new, beside a few known tokens: blanks depend on what stands before them."""
        known = self._tokenizer.decode(self._ids[self._window : self._read])
        text = self._tokenizer.decode(self._ids[self._window :])
        if len(text) <= len(known) or (text.endswith(_UNREADABLE) and not whole):
            return
        self._window, self._read = self._read, len(self._ids)
        self._held += text[len(known) :]
        self.length += len(text) - len(known)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.cut = self.length - len(self._held) + min(found)
            self._held = self._held[: min(found)]

    def _partial(self) -> int:
        """How many last characters may be the beginning of a stop string."""
        if self.cut is not None:
            return 0
        longest = max(map(len, self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
