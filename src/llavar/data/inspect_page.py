"""Rows of a data file as a page: tokens, the supervised ones marked, next to what the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from llavar import html, images
from llavar.data.encode import Tokenizer
from llavar.data.inspect import histogram, pieces, reasons, visible
from llavar.data.mixture import parse
from llavar.data.opened import open_data
from llavar.data.pictures import PictureStore, open_pictures
from llavar.data.rows import Encoder, measure
from llavar.data.source import RowError
from llavar.errors import ImageError, NotFoundError
from llavar.html import Markup
from llavar.images import WHOLE, Tiles, Transform
from llavar.records import IGNORE, Encoded, Example


def write_page(
    path: Path,
    out: Path,
    *,
    encoder: Encoder,
    pictures: Path | None,
    transform: Transform,
    size: int,
    tiles: Tiles = WHOLE,
    limit: int = 50,
) -> None:
    """Write the first ``limit`` rows of ``path`` to ``out``, with the lengths of all and what is unusable.

    ``pictures`` is a folder, tar or zip; those that a data file brings are shown without it. They are drawn
    as ``transform`` makes them, ``size`` pixels wide and high; with ``tiles`` the overview and every tile.

    Raises:
        LlavarError: data or pictures are not there, or cannot be read.
    """
    opened = open_data(parse(str(path)))
    store = opened.pictures or (open_pictures(pictures) if pictures else None)
    found = measure(opened.rows, encoder)
    shown = [opened.rows.get(number) for number in range(min(limit, len(opened.rows)))]
    cards = [_card(row, encoder, _Shown(store, transform, size, tiles)) for row in shown]
    usable = len(found.lengths) - len(found.rejects)
    unusable = html.table(["reason", "rows"], reasons(found), numeric=[1]) if found.rejects else None
    title = f"Rows of {path.name}"
    page = html.page(
        title,
        html.section(
            "All rows",
            html.facts(
                [
                    ("rows", f"{len(found.lengths):,}"),
                    ("usable", f"{usable:,}"),
                    ("tokens", f"{int(found.lengths.sum()):,}"),
                    ("supervised", f"{int(found.supervised.sum()):,}"),
                ]
            ),
            html.bars([(name, float(count)) for name, count in histogram(found)], title="Rows by tokens")
            if usable
            else None,
            unusable,
        ),
        html.section(
            f"The first {len(cards)}",
            html.grid(cards, across=2),
            intro="Bold green text is learned. Pictures are shown as the model sees them "
            f"({transform.value}, {size} x {size} pixels{_told(tiles)}).",
        ),
    )
    html.write(page, out)


class _Shown(NamedTuple):
    """Where pictures come from, and how the model sees them."""

    store: PictureStore | None
    transform: Transform
    size: int
    tiles: Tiles


def _told(tiles: Tiles) -> str:
    return "" if tiles == WHOLE else f", an overview and {tiles} tiles of as many"


def _card(row: Example | RowError, encoder: Encoder, shown: _Shown) -> Markup:
    try:
        if isinstance(row, RowError):
            raise row
        encoded = encoder(row)
    except RowError as error:
        said = (html.heading(visible(error.row)), html.badge(error.reason.value, good=False))
        return html.card(*said, html.paragraph(visible(error.detail)))
    drawn = [_picture(name, shown) for name in encoded.images]
    learned = len(encoded) - encoded.labels.count(IGNORE)
    counts = f"{len(encoded)} tokens, {learned} supervised, {len(encoded.images)} images"
    text = html.tag("pre", *_marked(encoded, encoder.tokenizer))
    head = html.join(*drawn) if drawn else None
    return html.card(html.heading(visible(encoded.id)), html.paragraph(counts, kind="note"), text, head=head)


def _marked(row: Encoded, tokenizer: Tokenizer) -> list[Markup]:
    """Pieces of one kind joined, those that are learned in bold."""
    parts: list[Markup] = []
    held, learned = "", False
    for piece, style in pieces(row, tokenizer):
        if piece == "⟦":
            parts.append(html.escape(held))
            held, learned = "", True
        elif piece == "⟧":
            parts.append(html.tag("b", held, class_="good"))
            held, learned = "", False
        elif style != "green":
            held += piece
    return [*parts, html.tag("b", held, class_="good") if learned else html.escape(held)]


def _picture(name: str, shown: _Shown) -> Markup:
    if shown.store is None:
        return html.paragraph(f"{visible(name)}: name its folder with --images", kind="none")
    try:
        seen = images.views(
            shown.store.source(name), tiles=shown.tiles, transform=shown.transform, size=shown.size
        )
    except (ImageError, NotFoundError) as error:
        return html.paragraph(html.badge("unusable picture", good=False), " ", visible(str(error)))
    quality = None if shown.size <= 128 else 85
    overview = html.picture(images.data_uri(seen[0], max_side=shown.size, quality=quality), name)
    if len(seen) == 1:
        return overview
    cells = _side_by_side(seen[1:], shown.tiles)
    told = f"{name} in {shown.tiles} tiles"
    return html.join(
        overview, html.picture(images.data_uri(cells, max_side=max(cells.size), quality=quality), told)
    )


def _side_by_side(cells: Sequence[Image.Image], tiles: Tiles, gap: int = 4) -> Image.Image:
    """The cells in their places, with grey between them."""
    width, height = cells[0].size
    size = (tiles.columns * (width + gap) - gap, tiles.rows * (height + gap) - gap)
    sheet = Image.new("RGB", size, (127, 127, 127))
    for place, cell in enumerate(cells):
        row, column = divmod(place, tiles.columns)
        sheet.paste(cell, (column * (width + gap), row * (height + gap)))
    return sheet
