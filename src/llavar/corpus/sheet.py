"""The contact sheet: a page of pictures from every cluster, on which a person picks those to keep."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llavar import html
from llavar.corpus.clusters import CLUSTER, Centres, drawn_first, parsed_centres
from llavar.corpus.item import Item
from llavar.corpus.shards import DECISION, STAGES, Corpus
from llavar.corpus.sight import picture_of
from llavar.errors import ImageError, NotFoundError

SHEET, CENTRES = "clusters.html", "clusters.json"
_SIDE = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A cluster: how many pictures it has, and some of them."""

    number: int
    count: int
    shown: tuple[Item, ...]


def groups_of(corpus: Corpus, *, shown: int = 12) -> list[Group]:
    """Clusters by number, each with ``shown`` of its pictures, drawn by the hash of their ids.

    Raises:
        NotFoundError: the corpus has no clusters yet.
    """
    counts: dict[int, int] = {}
    some: dict[int, list[Item]] = {}
    for items in corpus.items(CLUSTER):
        for item in items:
            if item.scores is None or item.scores.cluster is None:
                continue
            number = item.scores.cluster
            counts[number] = counts.get(number, 0) + 1
            some[number] = drawn_first([*some.get(number, ()), item], shown)
    if not counts:
        raise NotFoundError(f"{corpus.root} has no clusters; run a recipe with cluster: {{count: 100}} first")
    return [Group(number=n, count=counts[n], shown=tuple(some[n])) for n in sorted(counts)]


def write_sheet(corpus: Corpus, out: Path) -> list[Group]:
    """Write the page into the folder ``out``, and beside it the centres for other recipes; the clusters."""
    groups = groups_of(corpus)
    total = sum(group.count for group in groups)
    sections = (_section(corpus, group, total) for group in groups)
    page = html.page(
        "Clusters of a corpus",
        *sections,
        lead=f"{total:,} pictures in {len(groups)} clusters. Name those to keep in the recipe.",
        footer=(
            "The pictures shown are drawn by lot from each cluster, the same ones every time. In the recipe: "
            "cluster: {keep: [3, 7], at_most: 52000}"
        ),
    )
    html.write(page, out / SHEET)
    decided = corpus.root / STAGES / CLUSTER / DECISION
    _save(parsed_centres(decided.read_bytes().partition(b"\n")[2]), out / CENTRES)
    return groups


def _section(corpus: Corpus, group: Group, total: int) -> html.Markup:
    cells = [_thumbnail(corpus, item) for item in group.shown]
    pictures = html.tag("div", *cells, class_="contact")
    return html.section(f"Cluster {group.number}", pictures, intro=_counted(group.count, total))


def _counted(count: int, total: int) -> str:
    noun = "picture" if count == 1 else "pictures"
    return f"{count:,} {noun}, {count / total:.1%}"


def _thumbnail(corpus: Corpus, item: Item) -> html.Markup:
    try:
        picture = picture_of(item, corpus.root)
    except (ImageError, NotFoundError, OSError):
        return html.tag("span", f"{item.id} (its file is gone)", class_="none")
    picture.thumbnail((_SIDE, _SIDE))
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=80)
    uri = "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode()
    return html.picture(uri, item.id)


def _save(centres: Centres, path: Path) -> None:
    from pydantic import TypeAdapter

    aside = path.with_suffix(".part")
    aside.write_bytes(TypeAdapter(Centres).dump_json(centres))
    aside.replace(path)


def largest(groups: Sequence[Group]) -> str:
    """A line for people: the largest clusters."""
    first = sorted(groups, key=lambda group: (-group.count, group.number))[:8]
    return ", ".join(f"{group.number} ({group.count:,})" for group in first)
