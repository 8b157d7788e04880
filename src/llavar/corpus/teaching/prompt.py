"""The words a teacher is asked with: plain files of this package, each of which a user can replace."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field as Bounded
from pydantic import TypeAdapter, ValidationError

from llavar.corpus.teaching.draft import Draft, DraftTurn, Fault
from llavar.corpus.teaching.evidence import Evidence, as_data, fenced
from llavar.corpus.teaching.faults import faults
from llavar.errors import ConfigError, NotFoundError
from llavar.llm import Message

_HERE = Path(__file__).parent
PROMPT, EXAMPLES, LOOK = _HERE / "prompt.txt", _HERE / "examples.json", _HERE / "look.txt"
"""The files that are used where a recipe names no others."""
_MAX_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Example:
    """An entry of a file of examples: what is known of a picture, and a good conversation about it."""

    readings: Annotated[tuple[tuple[str, ...], ...], Bounded(min_length=1)]
    turns: tuple[DraftTurn, ...]
    caption: str = ""


_EXAMPLES = TypeAdapter(tuple[_Example, ...])


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Instruction, examples, and the instruction of the second look."""

    text: str
    examples: tuple[tuple[Evidence, Draft], ...]
    look: str

    @property
    def sha256(self) -> str:
        """Of everything that is the same in all requests."""
        content = [self.text, self.look, [[asked.document(), written(made)] for asked, made in self.examples]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def messages(self, evidence: Evidence) -> tuple[Message, ...]:
        """The request for a conversation."""
        shown = [
            message
            for asked, made in self.examples
            for message in (
                Message(role="user", text=fenced(asked.document())),
                Message(role="assistant", text=written(made)),
            )
        ]
        asked = Message(role="user", text=fenced(evidence.document()))
        return (Message(role="system", text=self.text), *shown, asked)

    def look_messages(self, evidence: Evidence, draft: Draft) -> tuple[Message, ...]:
        """The request to look at a conversation once more."""
        document = evidence.document() | {"turns": _plain(draft)}
        return (Message(role="system", text=self.look), Message(role="user", text=fenced(document)))

    def again(self, messages: Sequence[Message], said: str, fault: Fault) -> tuple[Message, ...]:
        """The request after a reply that cannot be used: what was said, and what is wrong with it."""
        detail = f" ({as_data(fault.detail)})" if fault.detail else ""
        complaint = (
            f"This cannot be used: {fault.reason}{detail}. Send the whole JSON object again, corrected, and "
            "nothing else."
        )
        said = said[:4000].strip() or "(nothing)"
        return (*messages, Message(role="assistant", text=said), Message(role="user", text=complaint))


def read_prompt(prompt: Path | None = None, examples: Path | None = None, look: Path | None = None) -> Prompt:
    """The prompt from files; None takes the one of this package.

    Raises:
        NotFoundError: a file is not there.
        ConfigError: a file is empty or no text, or an example would itself be rejected.
    """
    return Prompt(
        text=_text(prompt or PROMPT),
        examples=tuple(_examples(examples or EXAMPLES)),
        look=_text(look or LOOK),
    )


def _text(path: Path) -> str:
    if not path.is_file():
        raise NotFoundError(f"there is no file {str(path)!r} for the teacher; name one, or leave it out")
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(
            f"{path} has {path.stat().st_size} bytes, a prompt at most {_MAX_BYTES}; shorten it"
        )
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text; save it as such") from error
    if not text:
        raise ConfigError(f"{path} is empty; write the teacher's instruction, or leave the file out")
    return text


def _examples(path: Path) -> list[tuple[Evidence, Draft]]:
    try:
        found = _EXAMPLES.validate_json(_text(path), extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path}: {where}: {first['msg']}; mend the examples") from None
    return [_example(path, place, one) for place, one in enumerate(found, start=1)]


def _example(path: Path, place: int, found: _Example) -> tuple[Evidence, Draft]:
    """An example is held to what is asked of the teacher, which would learn its faults."""
    evidence = Evidence(readings=found.readings, caption=found.caption)
    draft = Draft(turns=found.turns)
    for fault in faults(draft, evidence):
        raise ConfigError(f"{path}: example {place}: {fault.reason} ({fault.detail}); mend the example")
    return evidence, draft


def written(draft: Draft) -> str:
    """A conversation as the teacher is to write it."""
    return json.dumps({"turns": _plain(draft)}, ensure_ascii=False)


def _plain(draft: Draft) -> list[dict[str, object]]:
    return [
        {"question": turn.question, "answer": turn.answer, "support": list(turn.support)}
        for turn in draft.turns
    ]
