"""What is asked and answered: endpoints, messages and replies."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from llavar.errors import ConfigError

Json = dict[str, Any]

KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable that holds the key if none is given."""

_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to ask, and how patiently.

    ``base_url`` is what stands before ``/chat/completions``, such as ``http://127.0.0.1:8000/v1``.
    ``api_key`` defaults to ``OPENAI_API_KEY``. ``timeout``: seconds for one attempt. ``attempts``: requests
    for one reply at most. Raises :class:`ConfigError` for a setting that cannot work.
    """

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    timeout: float = 60.0
    attempts: int = 5

    def __post_init__(self) -> None:
        url = self.base_url.strip().rstrip("/").removesuffix("/chat/completions")
        object.__setattr__(self, "base_url", url)
        _check_url(url)
        if not self.model.strip():
            raise ConfigError("the endpoint has no model name; give the name under which the server knows it")
        if not self.timeout > 0 or self.attempts < 1:
            raise ConfigError(
                f"a timeout of {self.timeout} s and {self.attempts} attempts cannot work; "
                "use more than 0 s and at least 1 attempt"
            )

    def key(self) -> str:
        """The API key, or an empty string for servers that want none."""
        key = (self.api_key or os.environ.get(KEY_VARIABLE, "")).strip()
        if not key.isascii() or not key.isprintable():
            raise ConfigError(f"the API key holds characters that no key has; check {KEY_VARIABLE}")
        return key


def _check_url(url: str) -> None:
    if not re.fullmatch(r"https?://[^/?#\s]+[^?#\s]*", url):
        raise ConfigError(
            f"{url[:100]!r} is not the URL of an endpoint; give it like http://127.0.0.1:8000/v1, "
            "without a query or fragment"
        )
    if "@" in url.split("/")[2]:
        raise ConfigError(f"the endpoint's URL holds a user name or password; give the key as {KEY_VARIABLE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. ``images`` are data URIs, sent before the text or, with ``images_first=False``, after it."""

    role: str
    text: str
    images: tuple[str, ...] = ()
    images_first: bool = True

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise ConfigError(f"a message has the role {self.role!r}; use one of {', '.join(_ROLES)}")
        for image in self.images:
            if not image.startswith("data:image/"):
                raise ConfigError(f"an image is given as {image[:40]!r}...; give it as a data:image/ URI")

    def document(self) -> Json:
        """The message as the protocol wants it: a plain string unless there are pictures."""
        text = whole(self.text)
        if not self.images:
            return {"role": self.role, "content": text}
        words: list[Json] = [{"type": "text", "text": text}]
        pictures: list[Json] = [{"type": "image_url", "image_url": {"url": uri}} for uri in self.images]
        return {"role": self.role, "content": pictures + words if self.images_first else words + pictures}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server answered.

    ``model`` is what the server says answered, ``finish`` why it stopped (``stop``, ``length`` ...). Token
    counts are 0 where the server gives none. ``seconds`` includes retries; ``cached`` replies cost nothing.
    """

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    finish: str
    seconds: float
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """A piece of an answer that is streamed. The last one says in ``finish`` why it ended."""

    text: str
    finish: str = ""


def whole(text: str) -> str:
    """``text`` with halves of surrogate pairs joined, and lone ones replaced by U+FFFD: it can be sent."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
