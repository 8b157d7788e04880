"""Whether a word is in a picture, taught letter by letter.

"Yes" and "no" depend on all letters of the word and of the picture at once, and a decoder that is told no
more learns for long to say one of them always. So it is asked for more: at every letter of a word that a
question quotes, whether any word of the picture begins with what is quoted so far. The head that names it is
thrown away afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from llavar.models.loss import head_loss
from llavar.models.tokenizer import TextTokenizer
from llavar.records import IGNORE, Encoded


class Finder(nn.Sequential):
    """Tells from what the last layer is given (n, width) whether a word of the picture begins so: (n, 2)."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 2))

    def loss(self, states: Tensor, found: Tensor) -> Tensor:
        """Summed over the letters; ``states``: (rows, length, width), ``found``: see :func:`stacked`."""
        quoted = found != IGNORE
        return head_loss(self, states[quoted], found[quoted])


def begun(row: Encoded, tokenizer: TextTokenizer, text: str) -> list[int]:
    """For each token of ``row``: at the letters of words that its questions quote, whether a word of ``text``
    begins with the letters so far, 1 or 0; IGNORE elsewhere."""
    flags = [IGNORE] * len(row)
    quote, quoted = tokenizer.token_id('"'), None
    for place, (token, label) in enumerate(zip(row.ids, row.labels, strict=True)):
        if label != IGNORE:
            quoted = None
        elif token == quote:
            quoted = "" if quoted is None else None
        elif quoted is not None:
            quoted += tokenizer.decode([token])
            flags[place] = int(bool(re.search(rf"(?<![A-Za-z0-9]){re.escape(quoted)}", text)))
    return flags


def stacked(flags: Sequence[Sequence[int]], like: Tensor) -> Tensor:
    """Those of several rows as int64 (rows, length), the shape of ``like``, padded by IGNORE."""
    found = torch.full(like.shape, IGNORE)
    for place, row in enumerate(flags):
        found[place, : len(row)] = torch.tensor(row)
    return found
