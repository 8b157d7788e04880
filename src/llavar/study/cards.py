"""What the pages about answers share: pictures, cards with a question and what was said, a choice by lot."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from llavar import html, images
from llavar.errors import LlavarError
from llavar.html import Child, Markup

LONGEST = 1500
"""Characters of an answer that a card shows."""

_REFERENCES = 6
"""Right answers that a card shows."""

_SIDE = 384
"""Pixels of the longer side of a picture on a page."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Where pictures are looked for. ``root`` is None where nobody knows; nothing outside it is opened."""

    root: Path | None

    @property
    def missing(self) -> str:
        """Why there will be no picture at all, or nothing."""
        if self.root is None:
            return "Where the pictures are is not known; --pictures DIR tells."
        if not self.root.is_dir():
            return f"The pictures are not at {self.root} any more; --pictures DIR tells where they are now."
        return ""

    def show(self, name: str, alt: str) -> Markup | None:
        """The picture ``name`` made small, or the reason why there is none; None for no name."""
        if not name:
            return None
        if self.missing:
            return html.paragraph(f"No picture: {name}", kind="note")
        path = self.find(name)
        if path is None:
            return html.paragraph(f"No picture: there is no {name} in {self.root}", kind="note")
        try:
            picture = images.open_image(path, reduced_to=_SIDE)
            small = max(picture.size) <= 256  # a small rendering keeps its pixels
            uri = images.data_uri(picture, max_side=_SIDE, quality=None if small else 80)
        except (LlavarError, OSError) as error:
            return html.paragraph(f"No picture: {error}", kind="note")
        return html.picture(uri, alt)

    def find(self, name: str) -> Path | None:
        """The file called so below the root; failing that, one there of the same name without folders.

        Other tools' files hold paths of the machine that they come from.
        """
        if self.root is None:
            return None
        base = Path(os.path.abspath(self.root))  # noqa: PTH100 - links stay usable, ".." goes
        for candidate in (base / name, base / Path(name).name):
            path = Path(os.path.abspath(candidate))  # noqa: PTH100
            try:
                if path != base and path.is_relative_to(base) and path.is_file():
                    return path
            except (OSError, ValueError):  # a name too long, or with a zero byte
                continue
        return None


def answer(text: str, *, empty: str = "(empty)") -> Markup:
    """What a model said, cut where it is very long."""
    if len(text) <= LONGEST:
        return html.quote(text, empty=empty)
    rest = remark(f"... and {len(text) - LONGEST:,} more characters")
    return html.join(html.quote(text[:LONGEST], empty=empty), " ", rest)


def remark(text: str) -> Markup:
    """A remark inside a line."""
    return html.tag("span", text, class_="note")


def references(texts: Sequence[str]) -> Markup:
    """The right answers, each once."""
    distinct = list(dict.fromkeys(texts))
    shown: list[Child] = []
    for text in distinct[:_REFERENCES]:
        shown += [remark(" or "), answer(text)] if shown else [answer(text)]
    if len(distinct) > _REFERENCES:
        shown.append(remark(f" or {len(distinct) - _REFERENCES} more"))
    return html.join(*shown) if shown else html.quote("", empty="(none known)")


def mark(value: float, *, binary: bool) -> Markup:
    """Right or wrong, or the score of an answer."""
    if binary:
        return html.badge("right" if value else "wrong", good=bool(value))
    return html.tag("span", f"{value:.2f}", class_="badge")


def card(head: Markup | None, pairs: Iterable[tuple[str, Child]], *, about: str) -> Markup:
    """A picture with what was asked and said below it; ``about`` is a small line at the end."""
    return html.card(html.rows(pairs), html.paragraph(about, kind="note"), head=head)


def anchor(name: str) -> str:
    """The address of a task on its page."""
    return "task-" + re.sub(r"[^\w.-]+", "-", name)


def by_lot(items: Sequence[_T], seed: str) -> list[_T]:
    """All items in an order that only ``seed`` decides."""
    return random.Random(seed).sample(items, len(items))


def numbered(count: int, what: str) -> str:
    """``1 answer``, ``2,000 answers``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shown(value: float, *, top: float = 1.0) -> str:
    """A score: four digits up to 1, one for MME's 0 to 200."""
    return html.number(round(value, 1)) if top > 1 else f"{value:.4f}".replace("-", "\N{MINUS SIGN}")
