"""Answers from a model behind an OpenAI-compatible server (vLLM, SGLang ...)."""

from __future__ import annotations

import base64
import io
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llavar import images
from llavar.errors import ConfigError, LlavarError
from llavar.generate.base import Outcome, Request, fingerprint, request_seed
from llavar.llm import Client, Message, Reply, many

if TYPE_CHECKING:
    from PIL.Image import Image

SERVERS_OWN = "server's own"
"""What is recorded where the server decides and does not say: transform, conversation, number format."""

_REMEMBER = 32


class RemoteGenerator:
    """Asks an endpoint, ``workers`` requests at a time.

    Pictures go as lossless PNG in their own size, turned upright, before or after the question as the request
    wants it; what the server does to them afterwards is its own. Drawn answers depend on the server too: it
    gets the seed of each request, and may ignore it.
    """

    def __init__(self, client: Client, *, workers: int = 8) -> None:
        if workers < 1:
            raise ConfigError(f"{workers} requests at a time cannot be; give at least 1")
        self._client, self._workers = client, workers
        self._encoded: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The endpoint and the name it knows the model by: what the weights are, only the server knows."""
        return f"{self._client.endpoint.base_url}#{self._client.endpoint.model}"

    @property
    def about(self) -> Mapping[str, str]:
        return {"transform": SERVERS_OWN, "conversation": SERVERS_OWN, "dtype": SERVERS_OWN}

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """One answer for each request, in their order.

        Raises:
            ImageError, NotFoundError: a picture cannot be used.
            FetchError: the server gave no reply, after retries.
        """
        texts = [""] * len(requests)
        for outcome in self.stream(requests):
            if outcome.error is not None:
                raise outcome.error
            texts[outcome.index] = outcome.text
        return texts

    def stream(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        """Every answer or failure as it comes."""
        for done in many(self._ask, requests, workers=self._workers):
            if done.result is None:
                yield Outcome(index=done.index, error=done.error or LlavarError("no reply and no reason"))
            else:
                yield Outcome(index=done.index, text=done.result.text.strip(), seconds=done.result.seconds)

    def _ask(self, request: Request) -> Reply:
        decoding = request.decoding
        shown = () if request.image is None else (self._uri(request.image),)
        message = Message(role="user", text=request.question, images=shown, images_first=request.image_first)
        return self._client.chat(
            [message],
            max_tokens=request.max_new_tokens,
            temperature=decoding.temperature,
            top_p=1.0 if decoding.greedy else decoding.top_p,
            seed=None if decoding.greedy else request_seed(request),
        )

    def _uri(self, image: str | Path | Image) -> str:
        """The picture as a data URI; the last few are kept, since questions on one picture come together."""
        name = fingerprint(image)
        with self._lock:
            known = self._encoded.get(name)
        if known is not None:
            return known
        made = png_uri(image)
        with self._lock:
            self._encoded[name] = made
            while len(self._encoded) > _REMEMBER:
                self._encoded.popitem(last=False)
        return made


def png_uri(image: str | Path | Image) -> str:
    """A picture as a ``data:`` URI: PNG, every pixel as it is.

    Raises:
        ImageError, NotFoundError: it cannot be opened.
    """
    opened = images.open_image(image) if isinstance(image, str | Path) else images.to_rgb(image)
    buffer = io.BytesIO()
    opened.save(buffer, format="png", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
