"""What the model will see of a data file: each row's tokens with the supervised ones marked.

Rows are hostile text, so nothing of them is read as markup and control characters are shown, not sent.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TextIO

import numpy as np
from rich.console import Console
from rich.text import Text

from llavar import chat
from llavar.data.encode import Tokenizer, encode
from llavar.data.mixture import parse
from llavar.data.opened import open_data
from llavar.data.rows import Encoder, Measured, measure
from llavar.data.source import RowError
from llavar.records import IGNORE, Encoded, Example, Role

_STYLES = {True: ("bold green", "bold bright_green underline"), False: ("", "dim")}
"""By supervision; the two alternate, so that token borders show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """How many rows were looked at, and how many of them cannot be used."""

    rows: int
    unusable: int


def inspect(
    path: Path,
    *,
    tokenizer: Tokenizer,
    template: chat.Template,
    image_tokens: int,
    views: int = 1,
    start_end: bool = True,
    max_length: int | None = None,
    as_json: bool = False,
    limit: int | None = None,
    stats: Encoder | None = None,
    out: TextIO,
) -> Inspection:
    """Print the first ``limit`` rows of ``path`` (all without one) as they are fed to the model.

    ``path`` may be any data file that is trained on. With ``stats`` all rows, shown or not, are encoded by it
    and counted at the end: how long they are, and why some cannot be used.

    With ``as_json`` one line a row, ``{"id", "input_ids", "labels"}`` or ``{"id", "error"}``; otherwise
    tokens, supervised ones green between ``⟦`` and ``⟧``, and the reason where a row cannot be used.

    Raises:
        NotFoundError, DataError: the file as a whole cannot be read.
        ModelError: the tokenizer has no image tokens and a row has pictures.
    """
    console = Console(file=out, highlight=False, markup=False, emoji=False, soft_wrap=True)
    seen = unusable = 0
    source = open_data(parse(str(path))).rows
    for number in range(len(source) if limit is None else min(limit, len(source))):
        row = source.get(number)
        result = _encoded(row, tokenizer, template, (image_tokens, views), start_end, max_length)
        seen += 1
        unusable += isinstance(result, RowError)
        if as_json:
            out.write(_json_line(result) + "\n")
        else:
            console.print(_shown(row, result, tokenizer))
    if not as_json:
        console.print(f"{seen} rows, {unusable} of them unusable")
    if stats is not None:
        console.print(summary(measure(source, stats)))
    return Inspection(rows=seen, unusable=unusable)


def summary(found: Measured) -> str:
    """Lengths of all rows as a table with bars, and the reasons of those that cannot be used."""
    lengths = found.lengths[found.lengths > 0]
    lines = [f"all {len(found.lengths):,} rows: {len(lengths):,} usable, {len(found.rejects):,} not"]
    if len(lengths):
        middle, high = (int(value) for value in np.percentile(lengths, (50, 99)))
        supervised = int(found.supervised.sum()) / int(lengths.sum())
        lines.append(
            f"tokens: {int(lengths.sum()):,} ({supervised:.1%} supervised); a row has {lengths.min():,} to "
            f"{lengths.max():,}, half of them at most {middle:,}, 99 % at most {high:,}"
        )
    bins = histogram(found)
    most = max((count for _, count in bins), default=1)
    lines += [f"  {name:>13} {count:>10,} {'█' * -(-40 * count // most)}".rstrip() for name, count in bins]
    for reason, count in reasons(found):
        lines.append(f"unusable: {count:,} {reason}")
    return "\n".join(lines)


def histogram(found: Measured, bins: int = 12) -> list[tuple[str, int]]:
    """At most ``bins`` ranges of tokens, equally wide, with how many usable rows lie in each."""
    lengths = found.lengths[found.lengths > 0]
    if not len(lengths):
        return []
    low, high = int(lengths.min()), int(lengths.max())
    width = -(-(high - low + 1) // bins)
    counts = np.bincount((lengths - low) // width)
    return [
        (f"{low + at * width:,}-{low + (at + 1) * width - 1:,}", count)
        for at, count in enumerate(counts.tolist())
    ]


def reasons(found: Measured) -> list[tuple[str, int]]:
    """Why rows cannot be used, the commonest first."""
    return Counter(reject.reason for reject in found.rejects.values()).most_common()


def _encoded(
    row: Example | RowError,
    tokenizer: Tokenizer,
    template: chat.Template,
    tokens_and_views: tuple[int, int],
    start_end: bool,
    max_length: int | None,
) -> Encoded | RowError:
    if isinstance(row, RowError):
        return row
    image_tokens, views = tokens_and_views
    try:
        return encode(
            row,
            tokenizer,
            template,
            image_tokens=image_tokens,
            views=views,
            start_end=start_end,
            max_length=max_length,
        )
    except RowError as error:
        return error


def _json_line(result: Encoded | RowError) -> str:
    if isinstance(result, RowError):
        return json.dumps({"id": result.row, "error": f"{result.reason.value}: {result.detail}"})
    return json.dumps({"id": result.id, "input_ids": result.ids, "labels": result.labels})


def _shown(row: Example | RowError, result: Encoded | RowError, tokenizer: Tokenizer) -> Text:
    if isinstance(result, RowError):
        text = Text(visible(result.row), style="bold")
        return text.append(
            f"  unusable, {visible(result.reason.value)}: {visible(result.detail)}\n", "bold red"
        )
    supervised = sum(label != IGNORE for label in result.labels)
    text = Text(visible(result.id), style="bold")
    text.append(f"  {len(result)} tokens, {supervised} supervised, {len(result.images)} images\n", "cyan")
    if isinstance(row, Example) and row.conversation.turns[0].role is Role.ASSISTANT:
        text.append("the conversation opens with an answer; templates but v0_train leave it out\n", "yellow")
    for piece, style in pieces(result, tokenizer):
        text.append(piece, style)
    return text.append("\n")


def pieces(row: Encoded, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """Text and style of each token; repeated image tokens are counted instead of repeated."""
    pairs = zip(row.ids, row.labels, strict=True)
    position = 0
    for supervised, tokens in groupby(pairs, key=lambda pair: pair[1] != IGNORE):
        yield ("⟦" if supervised else ""), "green"
        for index, same in groupby(token for token, _ in tokens):
            count = len(list(same))
            piece = tokenizer.piece(index)
            shown = [f"{piece}×{count}"] if piece == chat.IMAGE_PATCH else [piece] * count
            for one in shown:
                position += 1
                yield visible(one), _STYLES[supervised][position % 2]
        yield ("⟧" if supervised else ""), "green"


def visible(text: str) -> str:
    """``text`` with what a terminal would obey or hide (escapes, bidirectional marks) spelled out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
