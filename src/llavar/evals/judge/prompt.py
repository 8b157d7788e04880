"""What the judge is asked: LLaVA's prompt, with our own rules or those of a file in LLaVA's format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llavar.errors import DataError
from llavar.llm import whole

SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
"""The system message of ``eval_gpt_review_visual.py``."""

DEFAULT = "default"
"""The rule for categories that have none of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What the judge looks at in one category, and how the two who answered are called."""

    prompt: str
    role: str = "Assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An object in the picture; ``bbox`` is (x1, y1, x2, y2), usually as shares of width and height."""

    category: str
    bbox: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the judge knows of a picture: captions (or one text) and, where there are any, boxes."""

    captions: tuple[str, ...]
    instances: tuple[Instance, ...] = ()

    @property
    def text(self) -> str:
        """The captions one to a line, then, after a blank line, the boxes one to a line."""
        boxes = "\n".join(f"{found.category}: {list(found.bbox)}" for found in self.instances)
        return "\n\n".join(part for part in ("\n".join(self.captions), boxes) if part)


def review_prompt(context: Context, question: str, answers: Sequence[str], rule: Rule) -> str:
    """The user turn that asks for scores of two answers, character for character as LLaVA built it.

    Without boxes their paragraph is absent, as in ``eval_gpt_review_bench.py``: the released visual script
    cannot read contexts without them.
    """
    first, second = answers
    one, two = f"{rule.role} 1", f"{rule.role} 2"
    return (
        f"[Context]\n{context.text}\n\n"
        f"[Question]\n{question}\n\n"
        f"[{one}]\n{first}\n\n[End of {one}]\n\n"
        f"[{two}]\n{second}\n\n[End of {two}]\n\n"
        f"[System]\n{rule.prompt}\n\n"
    )


_TASK = (
    "Above are a user's question about an image and the answers of two AI assistants. You cannot see the "
    "image. {context}\n"
)
_CAPTIONS = (
    "The [Context] section stands for it: sentences that describe it and, if present, the objects in it with "
    "their bounding boxes as [x1, y1, x2, y2], where (x1, y1) is the top left and (x2, y2) the bottom right "
    "corner, in shares of the image's width and height."
)
_READING = (
    "The [Context] section stands for it: a description, followed by the text that an OCR program read in "
    "the image. OCR makes mistakes, so a plausible correction of what it read is not an error."
)
_FORM = (
    "\nGive each assistant one overall score from 1 to 10; the better the answer, the higher the score. "
    "Judge what is said and not its length, and do not let the order of the two answers influence you.\n"
    "Your first line must hold nothing but the two scores, that of Assistant 1 and then that of Assistant 2, "
    "with one space between them. Explain your scores from the second line on."
)
_CRITERIA = {
    DEFAULT: "Compare how helpful, relevant, accurate and detailed the two answers are.",
    "conv": "Compare how helpful, relevant and accurate the two answers are. A short answer that is right is "
    "a good one.",
    "detail": "Compare how completely and how accurately the two answers describe the image. Details that "
    "contradict the context, or that nothing in it supports, lower the score.",
    "complex": "Compare the reasoning in the two answers: does it start from what the image shows, is each "
    "step sound, and does it answer the question?",
    "read": "Compare how helpful, relevant, accurate and factual the two answers are. What is quoted from "
    "the image must be what is written there; invented text or facts lower the score.",
}


def built_in_rules() -> Mapping[str, Rule]:
    """Our own rules by category: LLaVA's ``conv``, ``detail``, ``complex``, LLaVAR's ``read``, ``default``.

    Their wording is ours, so scores are to be compared with published ones only under the published file.
    """
    return {
        name: Rule(prompt=_TASK.format(context=_READING if name == "read" else _CAPTIONS) + criterion + _FORM)
        for name, criterion in _CRITERIA.items()
    }


def read_rules(path: Path) -> Mapping[str, Rule]:
    """Rules of a file in LLaVA's format: ``{category: {"prompt": ..., "role": ...}}``.

    Raises :class:`DataError` for anything else.
    """
    try:
        document: Any = json.loads(path.read_bytes())
        rules = {
            str(name): Rule(prompt=_text(entry["prompt"]), role=_text(entry.get("role", "Assistant")))
            for name, entry in document.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(
            f'{path} is no file of rules ({error}); it must be {{"category": {{"prompt": ..., "role": ...}}}}'
        ) from error
    if not rules:
        raise DataError(f"{path} holds no rule; it needs one for each category, or one named {DEFAULT!r}")
    return rules


def rule_for(rules: Mapping[str, Rule], category: str) -> Rule:
    """The category's rule, else the default one."""
    found = rules.get(category) or rules.get(DEFAULT)
    if found is None:
        raise DataError(
            f"there is no rule for the category {category!r}; the file has {', '.join(sorted(rules))}, "
            f"so add it, or one named {DEFAULT!r}"
        )
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is not a text")
    return whole(value)
