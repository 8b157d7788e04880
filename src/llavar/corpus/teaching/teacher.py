"""A teacher as a recipe describes it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal

from llavar.corpus.teaching.lesson import LessonSettings
from llavar.corpus.teaching.replies import Prices
from llavar.errors import ConfigError
from llavar.llm import KEY_VARIABLE, Endpoint


class Transport(StrEnum):
    """How requests reach the model."""

    LIVE = "live"
    """One by one, several at a time."""
    BATCH = "batch"
    """In files: ``llavar corpus teach CORPUS --write-batch FILE`` and ``--read-batch FILE``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTeacher:
    """A text model behind an OpenAI-compatible endpoint. Paths are relative to the recipe's folder.

    The API key is in the environment, under the name ``key_variable``, and is stored nowhere.
    """

    kind: Literal["endpoint"]
    model: str
    url: str = ""
    """Like http://127.0.0.1:8000/v1; may be left out with ``transport: batch``."""
    key_variable: str = KEY_VARIABLE
    transport: Transport = Transport.LIVE
    prompt: Path | None = None
    """A text file with the instruction."""
    examples: Path | None = None
    """A JSON file with examples."""
    look_prompt: Path | None = None
    """A text file with the instruction of the second look."""
    temperature: float = 1.0
    max_tokens: int = 1500
    """Longest reply, in tokens."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What batch files call it; a live server is asked by the name that it wants."""
    tries: int = 3
    """Requests for one conversation, of which all but the last may be answered with what cannot be used."""
    second_look: bool = False
    """The model looks at each conversation once more, and what it does not support is cut off."""
    look_temperature: float = 0.0
    """For models that take no other temperature than theirs."""
    max_text: int = 4000
    """Pictures with more characters of text are not asked about."""
    seed: int = 0
    """Decides whether the picture stands before or after the first question."""
    concurrency: int = 8
    timeout: float = 120.0
    attempts: int = 5
    """Requests for one reply, of which all but the last may fail on the way."""
    prices: Prices = field(default_factory=Prices)
    max_cost: float | None = None
    """Money that the corpus may cost, all runs together."""
    budget_tokens: int | None = None
    """Tokens that the corpus may cost, of requests and replies, all runs together."""

    def __post_init__(self) -> None:
        if self.transport is Transport.LIVE or self.url:
            Endpoint(base_url=self.url, model=self.model, timeout=self.timeout, attempts=self.attempts)
        if not self.model.strip():
            raise ConfigError("the teacher has no model; give the name under which the server knows it")
        # What is written here by mistake may be the key itself: it is not repeated.
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", self.key_variable):
            raise ConfigError(
                "key_variable is no name of an environment variable; write the name, OPENAI_API_KEY for "
                "example, and keep the key itself out of the recipe"
            )
        for name in ("temperature", "look_temperature"):
            if not 0 <= getattr(self, name) <= 2:
                raise ConfigError(f"{name} is {getattr(self, name)} but must lie in 0 to 2: use 1.0, say")
        for name, most in (("max_tokens", 10**6), ("tries", 10), ("max_text", 10**6), ("concurrency", 256)):
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} of the teacher is {getattr(self, name)}; give 1 to {most}")
        for name in ("max_cost", "budget_tokens"):
            if (limit := getattr(self, name)) is not None and not limit >= 0:
                raise ConfigError(f"{name} is {limit}; give at least 0, or leave it out for no limit")
        if self.max_cost is not None and not (self.prices.prompt or self.prices.completion):
            raise ConfigError(
                f"max_cost is {self.max_cost:g} but the prices are 0, so that it would never be reached; "
                "give prices: {prompt: ..., completion: ...} for a million tokens"
            )

    @property
    def lesson(self) -> LessonSettings:
        """What of this decides what comes out, but for the words."""
        return LessonSettings(
            model=self.model,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            tries=self.tries,
            second_look=self.second_look,
            look_temperature=self.look_temperature,
            max_text=self.max_text,
        )

    def endpoint(self) -> Endpoint:
        """Where to ask.

        Raises:
            ConfigError: the recipe names a variable that holds no key.
        """
        key = os.environ.get(self.key_variable, "").strip()
        # Another variable was meant, not the one that the client takes by itself: no key goes astray.
        if not key and self.key_variable != KEY_VARIABLE:
            raise ConfigError(
                f"the environment variable {self.key_variable} holds no key; export it, or take key_variable "
                "out of the recipe"
            )
        return Endpoint(
            base_url=self.url, model=self.model, api_key=key, timeout=self.timeout, attempts=self.attempts
        )

    def within(self, folder: Path) -> EndpointTeacher:
        """The same with the paths of its files made absolute."""
        prompt, examples, look = (
            None if path is None else (folder / path).absolute()
            for path in (self.prompt, self.examples, self.look_prompt)
        )
        return replace(self, prompt=prompt, examples=examples, look_prompt=look)
