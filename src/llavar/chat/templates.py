"""Conversation templates as data. Their strings are format constants: released weights were trained with
exactly these characters.

Sources: ``llava/conversation.py`` and ``llava/train/train.py`` of the original code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from llavar.errors import ConfigError
from llavar.records import Role

LLAVA_SYSTEM = (
    "You are LLaVA, a large language and vision assistant trained by UW Madison WAIV Lab."
    "You are able to understand the visual content that the user provides,"
    " and assist the user with a variety of tasks using natural language."
    "Follow the instructions carefully and explain your answers in detail."
)
"""The system text of ``llava_v1``; that no blank follows the full stops is part of the format."""

_VICUNA_SYSTEM = (
    "A chat between a curious {person} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {person}'s questions."
)

_MPT_SYSTEM = (
    "<|im_start|>system\n"
    "- You are LLaVA, a large language and vision assistant trained by UW Madison WAIV Lab.\n"
    "- You are able to understand the visual content that the user provides,"
    " and assist the user with a variety of tasks using natural language.\n"
    "- You should follow the instructions carefully and explain your answers in detail."
)


class Style(StrEnum):
    """How roles, texts and separators are joined."""

    TWO = "two"
    """``ROLE: text``; users and assistants end in different separators."""
    SINGLE = "single"
    """``ROLE: text###``."""
    MPT = "mpt"
    """``ROLEtext<|im_end|>``, the role ending in a newline."""
    V0_TRAINING = "v0_training"
    """``### ROLE: text`` by lines. Here the assistant's role and the next ``###`` are learned as well."""
    OWN = "own"
    """A tokenizer's own chat template, in jinja."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Everything that turns a conversation into text.

    ``opening`` holds turns, the user first, that stand in every prompt and are never learned. ``turn_start``
    precedes each role, ``tail`` closes a training text. ``jinja`` and ``bos`` serve :attr:`Style.OWN` only.
    """

    name: str
    style: Style
    system: str = ""
    system_end: str = ""
    user: str = "USER"
    assistant: str = "ASSISTANT"
    user_end: str = ""
    answer_end: str = ""
    opening: tuple[str, ...] = ()
    turn_start: str = ""
    tail: str = ""
    jinja: str = ""
    bos: str = ""

    @property
    def gap(self) -> str:
        """What stands between a role and its text, and is left off where a turn is open."""
        return "" if self.style is Style.MPT else " "

    def label(self, role: Role) -> str:
        """How a turn of ``role`` begins, up to where a generation prompt stops."""
        name = self.user if role is Role.USER else self.assistant
        return self.turn_start + name + ("" if self.style is Style.MPT else ":")

    def end(self, role: Role) -> str:
        """How a turn of ``role`` ends."""
        return self.user_end if role is Role.USER else self.answer_end


def templates() -> tuple[Template, ...]:
    """The templates that have a name, LLaVAR's own first."""
    return (
        Template(
            name="llava_v1",
            style=Style.TWO,
            system=LLAVA_SYSTEM,
            system_end=" ",
            user_end=" ",
            answer_end="</s>",
        ),
        Template(
            name="vicuna_v1_1",
            style=Style.TWO,
            system=_VICUNA_SYSTEM.format(person="user"),
            system_end=" ",
            user_end=" ",
            answer_end="</s>",
        ),
        Template(
            name="multimodal",
            style=Style.SINGLE,
            system=LLAVA_SYSTEM,
            system_end="###",
            user="Human",
            assistant="Assistant",
            user_end="###",
            answer_end="###",
            opening=("Hi!", "Hi there!  How can I help you today?\n"),
        ),
        Template(
            name="v0_train",
            style=Style.V0_TRAINING,
            system=_VICUNA_SYSTEM.format(person="human"),
            system_end="\n\n",
            user="Human",
            assistant="Assistant",
            user_end="\n",
            answer_end="\n",
            turn_start="### ",
            tail="### ",
        ),
        Template(
            name="mpt_multimodal",
            style=Style.MPT,
            system=_MPT_SYSTEM,
            system_end="<|im_end|>",
            user="<|im_start|>user\n",
            assistant="<|im_start|>assistant\n",
            user_end="<|im_end|>",
            answer_end="<|im_end|>",
        ),
    )


def get(name: str) -> Template:
    """The template called ``name``.

    Raises:
        ConfigError: there is none, or it is ``plain``, which cannot carry OCR targets.
    """
    known = {template.name: template for template in templates()}
    if name == "plain":
        raise ConfigError(
            "conversation 'plain' throws the instruction away and learns a bare caption, which is wrong"
            f" where the answer is text read in the picture; use one of {', '.join(known)}"
        )
    if name not in known:
        raise ConfigError(f"conversation {name!r} is not known; use one of {', '.join(known)}")
    return known[name]


def for_training(template: Template) -> Template:
    """The template that rows are trained with, if answers are asked for with ``template``.

    They are the same but for ``multimodal``: the original trained v0 on another text (``v0_train``,
    ``conv_v1_2`` there) than it asks v0 with.
    """
    return get("v0_train") if template.name == "multimodal" else template


def for_checkpoint_name(folder: str) -> Template:
    """The template that the original chose by a checkpoint's folder name: a default for old ones only."""
    name = re.split(r"[/\\]", folder.rstrip("/\\"))[-1].lower()
    if "v1" in name:
        return get("llava_v1")
    return get("mpt_multimodal" if "mpt" in name else "multimodal")


def own(jinja: str, *, name: str = "own", bos: str = "", eos: str = "", system: str = "") -> Template:
    """A tokenizer's chat template behind the same interface; ``system`` "" keeps the template's default."""
    return Template(name=name, style=Style.OWN, jinja=jinja, bos=bos, answer_end=eos, system=system)
