"""Where pictures stand in a text, and how text read in a picture is kept from passing for control strings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from llavar.chat.templates import templates
from llavar.errors import DataError
from llavar.records import IMAGE_TAG

IMAGE_PATCH = "<im_patch>"
IMAGE_START = "<im_start>"
IMAGE_END = "<im_end>"


def with_image(question: str, *, first: bool) -> str:
    """A question about one picture, the tag before it (training) or after it (the original's evaluation)."""
    return f"{IMAGE_TAG}\n{question}" if first else f"{question}\n{IMAGE_TAG}"


def expand_images(
    text: str, n_tokens: int | Sequence[int], start_end: bool, *, patch: str = IMAGE_PATCH, views: int = 1
) -> str:
    """``text`` with each image tag replaced by as many ``<im_patch>`` as that picture has tokens.

    ``n_tokens`` is one count for all pictures, or one for each. ``start_end`` puts ``<im_start>`` and
    ``<im_end>`` around them (the original's ``mm_use_im_start_end``). ``patch`` is the placeholder of
    checkpoints that have another one. A picture that is shown in several ``views`` is written as so many
    pictures, each on a line of its own, which is how chat templates write several pictures.

    Raises:
        DataError: there are more or fewer tags than counts.
    """
    pieces = text.split(IMAGE_TAG)
    counts = [n_tokens] * (len(pieces) - 1) if isinstance(n_tokens, int) else list(n_tokens)
    if len(counts) != len(pieces) - 1:
        raise DataError(
            f"the text has {len(pieces) - 1} {IMAGE_TAG} tags for {len(counts)} images; give one tag for each"
        )
    opening, closing = (IMAGE_START, IMAGE_END) if start_end else ("", "")
    out = [pieces[0]]
    for count, piece in zip(counts, pieces[1:], strict=True):
        out.append("\n".join([opening + patch * count + closing] * views) + piece)
    return "".join(out)


def escape_special(text: str) -> str:
    """Text from OCR with a blank put into whatever a model or template would take for a control string.

    ``<image>`` becomes ``< image>``, ``</s>`` becomes ``< /s>``, ``###`` becomes ``# # #`` and ``USER:``
    becomes ``USER :``: readable, and nothing but blanks is added. Doing it twice changes nothing more.
    """
    text = re.sub(r"<(?=(?:image|im_patch|im_start|im_end|/?s|unk|pad)>|\|)", "< ", text)
    text = re.sub(r"\[(?=PAD\])", "[ ", text)
    text = re.sub(r"#{3,}", lambda match: " ".join(match[0]), text)
    return _roles().sub(r"\1 :", text)


@cache
def _roles() -> re.Pattern[str]:
    """What opens a turn in one of the templates. Texts are many, and the templates are always the same."""
    names = {name for template in templates() for name in (template.user, template.assistant)}
    roles = "|".join(sorted(re.escape(name) for name in names if not name.endswith("\n")))
    return re.compile(f"({roles}):")
