"""The data card of a corpus, as Markdown and as a page with pictures: what it holds, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llavar import html, images
from llavar.corpus.card_facts import CardFacts, SetFacts, gather
from llavar.corpus.decontaminate import STAGE as DECONTAMINATE
from llavar.corpus.item import Item
from llavar.corpus.products import PRODUCTS
from llavar.corpus.rows import path_of
from llavar.corpus.shards import existing
from llavar.errors import LlavarError
from llavar.html import Child, Markup
from llavar.records import IMAGE_TAG, Conversation, Role

MARKDOWN, PAGE = "card.md", "card.html"
_SIDE = 384
_KINDS = 24
"""Kinds of questions that a card lists."""
_LONGEST = 600
"""Characters of a text that the page shows."""
_MARKUP = {"<": "&lt;", ">": "&gt;", "&": "&amp;", **{char: f"\\{char}" for char in "\\`*_[]|#"}}
"""What Markdown would take for its own."""
_PAPER = {"stage1": (17.2, 48.8), "stage2": (15.1, 40.5)}
"""Mean LLaMA tokens of instruction and response in LLaVAR's own sets (table 1 of the paper)."""
_TITLES = {"stage1": "Stage 1: the visible text", "stage2": "Stage 2: conversations"}
_LICENCES = (
    "The pictures belong to whoever made them, and their licences are those of the source. A list of URLs "
    "says nothing about them: LAION's metadata is published under CC BY 4.0, the pictures behind it are not. "
    "names.jsonl says of every picture where it is from. Pictures whose server asks not to train on them "
    "(X-Robots-Tag: noai) are left out unless the recipe says otherwise.",
    "Text that was read in a picture is its author's. Questions and answers of a teacher are bound to the "
    "terms of that teacher.",
    "E-mail addresses and numbers of telephones, cards and accounts are masked in rows unless the recipe "
    "says otherwise; names are kept, since authors are the content of covers and posters. Faces are not "
    "looked for.",
)
_REMOVAL = (
    "llavar corpus remove CORPUS --sha256 H (as in names.jsonl) or --url U takes a picture out everywhere, "
    "with its copies and all rows about it, and keeps it out of later runs. Only hashes of it are kept."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A table of both documents; columns after the first are numbers if ``numbers``."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    numbers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A headed part of both documents."""

    title: str
    texts: tuple[str, ...] = ()
    tables: tuple[_Table, ...] = ()


def write_card(
    root: Path, *, tokens: Callable[[str], int] | None = None, tokenizer: str = ""
) -> tuple[Path, Path]:
    """Write ``card.md`` and ``card.html`` into the products of the corpus in ``root``.

    ``tokens`` counts the tokens of a text, ``tokenizer`` says whose.

    Raises:
        NotFoundError: there is no corpus.
    """
    facts = gather(existing(root), tokens)
    parts = list(_parts(facts, tokenizer))
    recipe = root / "recipe.json"
    how = json.dumps(json.loads(recipe.read_bytes()), indent=1) if recipe.is_file() else ""
    folder = root / PRODUCTS
    folder.mkdir(exist_ok=True)
    aside = folder / (MARKDOWN + ".part")
    aside.write_text(_markdown(root.absolute().name, facts, parts, how), encoding="utf-8")
    aside.replace(folder / MARKDOWN)
    html.write(_page(root, facts, parts, how), folder / PAGE)
    return folder / MARKDOWN, folder / PAGE


# ---------------------------------------------------------------------------------------------- contents


def _parts(facts: CardFacts, tokenizer: str) -> Iterator[_Part]:
    yield _Part(title="What is in it", tables=(_holdings(facts),))
    yield _Part(
        title="Lengths",
        texts=(
            f"Tokens are those of {tokenizer}."
            if tokenizer
            else "Tokens were not counted (--tokenizer DIR).",
            "The paper's are LLaMA tokens.",
        ),
        tables=(_lengths(facts),),
    )
    yield _Part(title="Questions", tables=tuple(_kinds(facts)))
    yield _Part(title="From source to row", tables=(_stages(facts), *_makers(facts)))
    yield _Part(title="What was left out", texts=_no_rejects(facts), tables=tuple(_rejects(facts)))
    yield _Part(title="Evaluation sets", texts=(_looked_for(facts),), tables=tuple(_leaks(facts)))
    yield _Part(title="Personal data", texts=(_masked(facts),))
    yield _Part(title="Licences and provenance", texts=_LICENCES)
    yield _Part(title="Taking a picture out", texts=(_REMOVAL,))


def _sets(facts: CardFacts) -> Iterator[tuple[str, SetFacts]]:
    return iter((("stage1", facts.stage1), ("stage2", facts.stage2)))


def _holdings(facts: CardFacts) -> _Table:
    rows = [(_TITLES[name], f"{one.rows:,}", f"{one.questions:,}") for name, one in _sets(facts)]
    return _Table(header=("Set", "Rows", "Questions"), rows=rows)


def _lengths(facts: CardFacts) -> _Table:
    rows: list[tuple[str, ...]] = []
    for name, one in _sets(facts):
        for what, length in sorted(one.lengths.items()):
            side, unit = what.split()
            paper = f"{_PAPER[name][side == 'response']}" if unit == "tokens" else ""
            numbers = (f"{length.mean:,}", f"{length.median:,}", f"{length.p95:,}", f"{length.longest:,}")
            rows.append((f"{name}, {what}", *numbers, paper))
    header = ("Lengths", "Mean", "Median", "95 % up to", "Longest", "Mean in the paper")
    return _Table(header=header, rows=rows)


def _kinds(facts: CardFacts) -> Iterator[_Table]:
    for name, one in _sets(facts):
        if one.kinds:
            ordered = sorted(one.kinds.items(), key=lambda pair: (-pair[1], pair[0]))
            rows = [(kind, f"{n:,}", f"{n / one.questions:.1%}") for kind, n in ordered[:_KINDS]]
            if len(ordered) > _KINDS:
                rest = sum(n for _, n in ordered[_KINDS:])
                rows.append(
                    (f"{len(ordered) - _KINDS} more kinds", f"{rest:,}", f"{rest / one.questions:.1%}")
                )
            yield _Table(header=(f"Questions of {name}", "Number", "Share"), rows=rows)


def _stages(facts: CardFacts) -> _Table:
    rows = [(one.stage, f"{one.rows:,}", f"{one.kept:,}", f"{one.rows - one.kept:,}") for one in facts.stages]
    return _Table(header=("Stage", "In", "Kept", "Left out"), rows=rows)


def _makers(facts: CardFacts) -> Iterator[_Table]:
    counted: list[tuple[str, Iterable[tuple[object, int]]]] = [
        ("Source", facts.sources.items()),
        ("Pictures read by", facts.engines.items()),
        ("Conversations by", facts.teachers.items()),
        ("Prompt (SHA-256)", ((name, n) for name, n in facts.prompts.items() if name)),
        ("Cluster", facts.clusters.items()),
    ]
    for title, found in counted:
        rows = [(str(name), f"{n:,}") for name, n in sorted(found, key=lambda pair: (-pair[1], str(pair[0])))]
        if rows:
            yield _Table(header=(title, "Pictures"), rows=rows)
    if facts.prompt_tokens:
        tokens = (f"{facts.prompt_tokens:,}", f"{facts.completion_tokens:,}", f"{facts.cost:,.4f}")
        yield _Table(header=("Teacher", "Tokens asked", "Tokens answered", "Cost"), rows=[("all", *tokens)])


def _no_rejects(facts: CardFacts) -> tuple[str, ...]:
    return () if facts.rejects else ("Nothing was left out.",)


def _rejects(facts: CardFacts) -> Iterator[_Table]:
    ordered = sorted(facts.rejects.items(), key=lambda pair: (-pair[1], pair[0]))
    rows = [(stage, reason, f"{n:,}", _first(facts, stage, reason)) for (stage, reason), n in ordered]
    if rows:
        yield _Table(header=("Stage", "Reason", "Items", "For example"), rows=rows, numbers=False)
    noted = sorted(facts.notes.items(), key=lambda pair: (-pair[1], pair[0]))
    if noted:
        missing = [(stage, reason, f"{n:,}") for (stage, reason), n in noted]
        yield _Table(header=("Row missing at", "Reason", "Items that went on"), rows=missing, numbers=False)


def _first(facts: CardFacts, stage: str, reason: str) -> str:
    found = facts.first[stage, reason]
    return "; ".join(f"{one.reject.id[-60:]} ({one.reject.detail[:80]})".replace(" ()", "") for one in found)


def _looked_for(facts: CardFacts) -> str:
    if any(stage.stage == DECONTAMINATE for stage in facts.stages):
        return f"{facts.leaks.total():,} pictures are equal to ones of evaluation sets or look like them."
    return "Pictures of evaluation sets were not looked for (decontaminate in the recipe)."


def _leaks(facts: CardFacts) -> Iterator[_Table]:
    rows = [(name, reason, f"{n:,}") for (name, reason), n in sorted(facts.leaks.items())]
    if rows:
        yield _Table(header=("Evaluation set", "Kept out because", "Pictures"), rows=rows, numbers=False)


def _masked(facts: CardFacts) -> str:
    told = ", ".join(f"{kind} {n:,}" for kind, n in facts.masked.items() if n)
    return f"Masked pieces by kind: {told}." if told else "Nothing was masked."


# ---------------------------------------------------------------------------------------------- Markdown


def _markdown(name: str, facts: CardFacts, parts: Sequence[_Part], how: str) -> str:
    lines = [f"# Data card of {_cell(name)}", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        for text in part.texts:
            lines += [_cell(text), ""]
        for table in part.tables:
            lines += [*_pipes(table), ""]
    files = [(one.file, f"{one.bytes:,}", f"{one.rows:,}" if one.rows else "") for one in facts.products]
    lines += ["## Files", "", *_pipes(_Table(header=("File", "Bytes", "Rows"), rows=files)), ""]
    lines += ["## How it was made", "", "```json", how.replace("```", "` ` `"), "```", ""]
    return "\n".join(lines)


def _pipes(table: _Table) -> Iterator[str]:
    yield f"| {' | '.join(map(_cell, table.header))} |"
    rule = ["---", *("---:" if table.numbers else "---" for _ in table.header[1:])]
    yield f"| {' | '.join(rule)} |"
    for row in table.rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    """Text of unknown origin as it stands, and never as markup."""
    flat = " ".join(text.split())
    return "".join(_MARKUP.get(char, char) for char in flat)


# ---------------------------------------------------------------------------------------------- the page


def _page(root: Path, facts: CardFacts, parts: Sequence[_Part], how: str) -> str:
    shown = [_card(root, item) for item in facts.examples]
    sections = [_section(part) for part in parts]
    rows = "drawn by lot, the same ones every time"
    pictures = html.section("Rows", html.grid(shown, across=3), intro=f"{len(shown)} pictures, {rows}.")
    left = list(_left_out(root, facts))
    if left:
        title, intro = "Pictures that were left out", "One for each reason, where there is a file."
        sections.insert(5, html.section(title, html.grid(left), intro=intro))
    files = [(one.file, f"{one.bytes:,}", f"{one.rows:,}" if one.rows else "") for one in facts.products]
    return html.page(
        f"Data card of {root.absolute().name}",
        html.grid(_tiles(facts)),
        pictures if shown else html.paragraph("No row was made.", kind="verdict"),
        *sections,
        html.section("Files", html.table(("File", "Bytes", "Rows"), files, numeric=(1, 2))),
        html.section("How it was made", html.details("The recipe of the last run", html.verbatim(how))),
        lead="Instruction data made from pictures with text.",
        footer="Written by llavar corpus card. Nothing on this page is loaded from elsewhere.",
    )


def _tiles(facts: CardFacts) -> Iterator[Markup]:
    yield html.tile("Pictures in", f"{facts.stages[0].rows:,}", f"{facts.stages[-1].kept:,} kept")
    for name, one in _sets(facts):
        yield html.tile(f"Rows of {name}", f"{one.rows:,}", f"{one.questions:,} questions")
    yield html.tile("Left out", f"{facts.rejects.total():,}", f"for {len(facts.rejects)} reasons")


def _section(part: _Part) -> Markup:
    tables: list[Markup] = []
    for table in part.tables:
        numeric = range(1, len(table.header)) if table.numbers else ()
        tables.append(html.table(table.header, table.rows, numeric=numeric))
    return html.section(part.title, *(html.paragraph(text) for text in part.texts), *tables)


def _card(root: Path, item: Item) -> Markup:
    pairs: list[tuple[str, Child]] = []
    for name, said in (("stage 1", item.stage1), ("stage 2", item.stage2 and item.stage2.conversation)):
        if said is not None:
            pairs += list(_turns(name, said))
    about = f"{item.id}, {item.file.width} x {item.file.height}" if item.file else item.id
    return html.card(html.rows(pairs), html.paragraph(about, kind="note"), head=_picture(root, item))


def _turns(name: str, said: Conversation) -> Iterator[tuple[str, Child]]:
    for turn in said.turns:
        text = turn.text.replace(IMAGE_TAG, "").strip()
        cut = text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."
        yield (f"Question, {name}" if turn.role is Role.USER else "Answer"), html.quote(cut)


def _left_out(root: Path, facts: CardFacts) -> Iterator[Markup]:
    for (stage, reason), found in sorted(facts.first.items()):
        one = next((one for one in found if one.item.file is not None or one.item.origin.path), None)
        picture = _picture(root, one.item) if one is not None else None
        if one is not None and picture is not None and picture.startswith("<img"):
            why = html.rows([(f"Left out at {stage}", reason)])
            note = html.paragraph(f"{one.item.id[-80:]} {one.reject.detail[:120]}", kind="note")
            yield html.card(why, note, head=picture)


def _picture(root: Path, item: Item) -> Markup | None:
    path = path_of(item)
    if not path:
        return None
    try:
        opened = images.open_image(root / path, reduced_to=_SIDE)
        return html.picture(images.data_uri(opened, max_side=_SIDE, quality=80), f"picture of {item.id}")
    except (LlavarError, OSError) as error:
        return html.paragraph(f"No picture: {error}", kind="note")
