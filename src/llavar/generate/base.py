"""What a model looks like to those who only want answers from it: evaluation, serving, the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question on one picture, or on none. ``max_new_tokens`` bounds the answer, in tokens."""

    image: str | Path | Image | None
    question: str
    max_new_tokens: int = 128


class Generator(Protocol):
    """Answers a batch of requests; local models and remote ones look the same from here."""

    @property
    def name(self) -> str:
        """Names the weights, not the architecture: stored predictions are taken up again by it."""
        ...

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """One answer for each request, in their order; the result must not depend on the batch.

        Raises a :class:`llavar.errors.LlavarError` if a request cannot be answered. Evaluation then asks
        the requests of the batch one by one, so that one broken picture costs one answer.
        """
        ...
