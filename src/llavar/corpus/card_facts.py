"""What a data card tells of a corpus, gathered in one pass over its shards and rejects."""

from __future__ import annotations

import hashlib
import heapq
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from llavar.corpus.decontaminate import STAGE as DECONTAMINATE
from llavar.corpus.decontaminate import set_of
from llavar.corpus.item import Item, Rejected
from llavar.corpus.products import Product, summary_of
from llavar.corpus.shards import SCAN, Corpus, StageSummary
from llavar.corpus.verify import Lengths, lengths_of
from llavar.corpus.wordings import STAGE1_WORDINGS, WORDINGS
from llavar.records import IMAGE_TAG, Conversation, Role

EXAMPLES = 12
"""Rows that a card shows with their pictures."""
PER_REASON = 3
"""Examples of each reason for which something was left out."""


@dataclass(slots=True)
class SetFacts:
    """One of the two sets. Lengths by side and unit, ``response characters``."""

    rows: int = 0
    questions: int = 0
    kinds: Counter[str] = field(default_factory=Counter[str])
    values: dict[str, array[int]] = field(default_factory=dict[str, "array[int]"])

    @property
    def lengths(self) -> dict[str, Lengths]:
        return {name: lengths_of(values) for name, values in self.values.items()}


@dataclass(slots=True)
class CardFacts:
    """Counts of a corpus; ``examples`` and ``rejected`` are drawn by lot, the same ones every time."""

    stages: tuple[StageSummary, ...]
    products: tuple[Product, ...]
    stage1: SetFacts = field(default_factory=SetFacts)
    stage2: SetFacts = field(default_factory=SetFacts)
    sources: Counter[str] = field(default_factory=Counter[str])
    engines: Counter[str] = field(default_factory=Counter[str])
    teachers: Counter[str] = field(default_factory=Counter[str])
    prompts: Counter[str] = field(default_factory=Counter[str])
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    masked: Counter[str] = field(default_factory=Counter[str])
    clusters: Counter[int] = field(default_factory=Counter[int])
    rejects: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    notes: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    leaks: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Pictures of evaluation sets that were kept out, by set and reason."""
    first: dict[tuple[str, str], list[Rejected]] = field(
        default_factory=dict[tuple[str, str], list[Rejected]]
    )
    examples: list[Item] = field(default_factory=list[Item])


def gather(corpus: Corpus, tokens: Callable[[str], int] | None = None) -> CardFacts:
    """``tokens`` counts those of a text; without it lengths are in characters only."""
    stages = [stage for stage in corpus.chain() if stage.shards]  # those that have begun
    summary = summary_of(corpus.root)
    facts = CardFacts(stages=tuple(stages), products=() if summary is None else summary.files)
    kept = (item for last in stages[-1:] for items in corpus.items(last.stage) for item in items)
    facts.examples = heapq.nsmallest(EXAMPLES, _seen(kept, facts, tokens), key=_lot)
    for stage in stages:
        for one in (one for ended in corpus.rejected(stage.stage) for one in ended):
            _left_out(one, facts)
    return facts


def _lot(item: Item) -> str:
    return hashlib.sha256(item.id.encode("utf-8", "replace")).hexdigest()


def _seen(items: Iterator[Item], facts: CardFacts, tokens: Callable[[str], int] | None) -> Iterator[Item]:
    for item in items:
        facts.sources[item.origin.source] += 1
        facts.engines.update(reading.engine for reading in item.readings)
        for kind in ("email", "phone", "card", "iban"):
            facts.masked[kind] += getattr(item.masked, kind)
        facts.notes.update((note.stage, note.reason) for note in item.notes)
        if item.scores is not None and item.scores.cluster is not None:
            facts.clusters[item.scores.cluster] += 1
        if item.stage1 is not None:
            _measure(item.stage1, facts.stage1, tokens)
        if item.stage2 is not None:
            _measure(item.stage2.conversation, facts.stage2, tokens)
            facts.teachers[item.stage2.teacher] += 1
            facts.prompts[item.stage2.prompt_sha256] += 1
            facts.prompt_tokens += item.stage2.prompt_tokens
            facts.completion_tokens += item.stage2.completion_tokens
            facts.cost += item.stage2.cost
        yield item


def _measure(said: Conversation, into: SetFacts, tokens: Callable[[str], int] | None) -> None:
    into.rows += 1
    for turn in said.turns:
        text = turn.text.replace(IMAGE_TAG, "").strip()
        side = "response"
        if turn.role is Role.USER:
            side = "instruction"
            into.questions += 1
            into.kinds[kind_of(text)] += 1
        into.values.setdefault(f"{side} characters", array("q")).append(len(text))
        if tokens is not None:
            into.values.setdefault(f"{side} tokens", array("q")).append(tokens(text))


def _left_out(one: Rejected, facts: CardFacts) -> None:
    key = (one.reject.stage, one.reject.reason)
    facts.rejects[key] += 1
    if one.reject.stage == DECONTAMINATE:
        facts.leaks[set_of(one.reject), one.reject.reason] += 1
    if one.reject.stage != SCAN:
        facts.sources[one.item.origin.source] += 1
    first = facts.first.setdefault(key, [])
    if len(first) < PER_REASON:
        first.append(one)


def kind_of(question: str) -> str:
    """What a question is about, by its wording; for others, how it begins."""
    for kind, pattern in _PATTERNS:
        if pattern.fullmatch(question):
            return kind
    words = re.findall(r"\w+", question.casefold())
    start = " ".join(words[:2]) if words[:1] == ["how"] else "".join(words[:1])
    return f"other: {start} ..." if start else "other"


def _pattern(wording: str) -> str:
    return re.sub(r"\\\{\w+\\\}", ".+", re.escape(wording))


_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("all text (stage 1)", re.compile("|".join(map(_pattern, STAGE1_WORDINGS)))),
    *(
        (
            kind.value.replace("_", " "),
            re.compile("|".join(map(_pattern, wordings.train + wordings.held_out))),
        )
        for kind, wordings in WORDINGS.items()
    ),
)
