"""What a model looks like to those who only want answers from it: evaluation, serving, the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from llavar import images
from llavar.errors import ConfigError, LlavarError

if TYPE_CHECKING:
    from PIL.Image import Image


_ROWS = 256
"""Rows of a picture that are copied at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How the next token is chosen. Temperature 0 takes the likeliest one, and the rest has no effect.

    Above 0 tokens are drawn, from the likeliest ones that together have the probability ``top_p``. Every
    request draws from a stream of its own (:func:`request_seed`), so an answer depends on ``seed`` and on its
    question, never on what else was in the batch.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:  # NaN too
            raise ConfigError(f"the temperature is {self.temperature}; give 0 (greedy) to 100")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p is {self.top_p}; give more than 0 and at most 1 (no cut)")
        if self.seed < 0:
            raise ConfigError(f"the seed is {self.seed}; give a whole number of at least 0")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def document(self) -> dict[str, object]:
        """For results and keys: two decodings that give the same answers have the same one."""
        if self.greedy:
            return {"temperature": 0.0}
        return {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question on one picture, or on none. ``max_new_tokens`` bounds the answer, in tokens.

    The picture stands before the question or, without ``image_first``, after it, as the original evaluates.
    ``id`` tells equal questions on equal pictures apart where tokens are drawn.
    """

    image: str | Path | Image | None
    question: str
    max_new_tokens: int = 128
    decoding: Decoding = Decoding()
    image_first: bool = True
    id: str = ""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}; an answer needs at least 1")


class Generator(Protocol):
    """Answers a batch of requests; local models and remote ones look the same from here."""

    @property
    def name(self) -> str:
        """Names the weights, not the architecture: stored predictions are taken up again by it."""
        ...

    @property
    def about(self) -> Mapping[str, str]:
        """What else decides its answers, for keys and results: ``transform``, ``conversation`` ..."""
        ...

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """One answer for each request, in their order; the result must not depend on the batch.

        Raises a :class:`llavar.errors.LlavarError` if a request cannot be answered. Evaluation then asks
        the requests of the batch one by one, so that one broken picture costs one answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one of several requests ended: ``index`` among them, a text or the error, and seconds it took."""

    index: int
    text: str = ""
    error: LlavarError | None = None
    seconds: float = 0.0


@runtime_checkable
class Streaming(Protocol):
    """A generator that also hands out each answer as it comes, so that none waits for the slowest."""

    def stream(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        """One outcome for each request, in any order. A request that cannot be answered raises nothing."""
        ...


def fingerprint(image: str | Path | Image) -> str:
    """A digest of a picture: of the bytes of its file, or of the pixels of one that is open.

    Raises:
        ImageError, NotFoundError: the path leads to no regular file that can be read.
    """
    if isinstance(image, str | Path):
        path = Path(image)
        try:
            if path.is_file():  # a pipe or a device could block for ever
                with path.open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError):
            pass
        image = images.open_image(image)  # which says what is wrong
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    for top in range(0, image.height, _ROWS):  # the same bytes as all at once, without a copy of them all
        digest.update(image.crop((0, top, image.width, min(top + _ROWS, image.height))).tobytes())
    return digest.hexdigest()


def request_seed(request: Request) -> int:
    """The seed of a request's own stream of random numbers, 0 to 2**31 - 1.

    From the seed, the id, the question and, where there is no id, the picture.
    """
    picture = "" if request.id or request.image is None else fingerprint(request.image)
    content = json.dumps([request.decoding.seed, request.id, request.question, picture])
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "big") >> 1
