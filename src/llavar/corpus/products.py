"""What a corpus is for: rows in LLaVA's format, and everything that was left out, each with its reason."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from llavar.corpus.item import Item, Rejected
from llavar.corpus.rows import path_of
from llavar.corpus.shards import Corpus
from llavar.data.source import write_rows
from llavar.errors import NotFoundError
from llavar.records import Conversation, Example

PRODUCTS = "products"
STAGE1 = "stage1.json"
STAGE2 = "stage2.json"
REJECTS = "rejects.jsonl"

_REJECTED, _ITEM = TypeAdapter(Rejected), TypeAdapter(Item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """What was written: rows by file, rejects by stage and reason."""

    folder: Path
    stage1: int
    stage2: int
    rejects: Counter[tuple[str, str]]


def write_products(corpus: Corpus, stages: Sequence[str]) -> Products:
    """Rows of the items that came through all ``stages``; rejects of each of them, a line each with its item.

    Nothing but one shard lies in memory at a time. Image paths are as the items have them: relative to the
    corpus, or absolute.
    """
    folder = corpus.root / PRODUCTS
    counts = [
        _write(corpus, stages[-1], folder / STAGE1, lambda item: item.stage1),
        _write(corpus, stages[-1], folder / STAGE2, lambda item: item.stage2 and item.stage2.conversation),
    ]
    rejects: Counter[tuple[str, str]] = Counter()
    aside = folder / (REJECTS + ".part")
    with aside.open("wb") as file:
        for rejected in _rejected(corpus, stages):
            rejects[rejected.reject.stage, rejected.reject.reason] += 1
            file.write(_REJECTED.dump_json(rejected) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(folder / REJECTS)
    return Products(folder=folder, stage1=counts[0], stage2=counts[1], rejects=rejects)


def _write(
    corpus: Corpus, stage: str, path: Path, conversation: Callable[[Item], Conversation | None]
) -> int:
    count = 0

    def rows() -> Iterator[Example]:
        nonlocal count
        for items in corpus.items(stage):
            for item in items:
                said = conversation(item)
                if said is not None:
                    count += 1
                    yield Example(id=item.id, conversation=said, images=(path_of(item),))

    write_rows(rows(), path)
    return count


def _rejected(corpus: Corpus, stages: Sequence[str]) -> Iterator[Rejected]:
    for stage in stages:
        for shard in corpus.rejected(stage):
            yield from shard


def life_of(corpus: Corpus, id: str) -> str:
    """All that is known of an item, as indented JSON: its fullest record, and where and why it ended if so.

    Raises:
        NotFoundError: no stage has seen it.
    """
    for stage in reversed([summary.stage for summary in corpus.chain()]):
        for items, ended in zip(corpus.items(stage), corpus.rejected(stage), strict=True):
            for one in ended:
                if one.item.id == id:
                    return _shown({"stage": stage, **_REJECTED.dump_python(one, mode="json")})
            for item in items:
                if item.id == id:
                    return _shown(
                        {"stage": stage, "reject": None, "item": _ITEM.dump_python(item, mode="json")}
                    )
    raise NotFoundError(f"{corpus.root} has no item {id!r:.200}; ids stand in its rows and rejects")


def _shown(life: dict[str, object]) -> str:
    return json.dumps(life, ensure_ascii=False, indent=1)


def status_of(corpus: Corpus) -> Iterator[str]:
    """Lines for people: what each stage has done, and what it left out for which reason."""
    given: int | None = None
    for stage in corpus.chain():
        seconds = f"{stage.seconds:.1f} s" + (
            f", {stage.seconds / stage.rows:.3f} s an item" if stage.rows else ""
        )
        of = "" if given is None or given == stage.rows else f" of {given}"
        yield f"{stage.stage:>8}  {stage.rows}{of} done, {stage.kept} kept, {stage.shards} shards, {seconds}"
        reasons = Counter(one.reject.reason for ended in corpus.rejected(stage.stage) for one in ended)
        for reason, count in reasons.most_common():
            yield f"{'':>8}  {count} left out: {reason}"
        given = stage.kept
