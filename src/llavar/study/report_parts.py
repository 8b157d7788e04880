"""Parts of the demo's page that show pictures: a question and its answers, what was read, rows made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llavar import html, images
from llavar.errors import LlavarError
from llavar.html import Child, Markup
from llavar.records import Example, Reading, Reject, Role, Score

_MANY = 24
"""Lines of a reading that the page shows; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said. ``right`` is ``None`` where nobody knows; ``failed`` says why there is no answer."""

    text: str
    right: bool | None = None
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeRows:
    """One picture on its way to instruction data. ``truth`` is the text that is really in it, if known."""

    image: Path
    reading: Reading
    stage1: tuple[Example, ...] = ()
    stage2: tuple[Example, ...] = ()
    rejects: tuple[Reject, ...] = ()
    truth: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSummary:
    """What the corpus commands did: pictures in, pictures kept, every reject, and (name, count) of rows made.

    ``ocr_cer`` is the engine's character error rate against the exact truth of the rendered pictures.
    """

    pictures: int
    kept: int
    rejects: tuple[Reject, ...]
    rows: tuple[tuple[str, int], ...]
    engine: str
    ocr_cer: Score | None = None
    examples: tuple[MadeRows, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnAnswer:
    """A question on one of the user's pictures, to which no reference is known."""

    question: str
    without: Answer
    with_: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPicture:
    """One of the user's pictures; ``made`` is ``None`` if it could not be read, and ``problem`` says why."""

    image: Path
    made: MadeRows | None = None
    answers: tuple[OwnAnswer, ...] = ()
    problem: str = ""


# --- a picture and its answers ---------------------------------------------------------------------------


def opened(path: Path, alt: str, side: int, made: MadeRows | None = None) -> Markup:
    """The picture, with the boxes of what was read in it, or the reason why there is none."""
    try:
        picture = images.open_image(path, reduced_to=side)
        small = max(picture.size) <= 256  # a small rendering keeps its pixels
        uri = images.data_uri(picture, max_side=side, quality=None if small else 82)
    except (LlavarError, OSError) as error:
        return html.paragraph(f"No picture: {error}", kind="note")
    if made and made.reading.lines:
        return html.boxed_picture(uri, alt, made.reading.size, [line.box for line in made.reading.lines])
    return html.picture(uri, alt)


def answer_row(label: str, answer: Answer) -> tuple[str, Child]:
    if answer.failed:
        return label, html.join(html.badge("failed", good=False), f" {answer.failed}")
    if answer.right is None:
        return label, html.quote(answer.text)
    return label, html.join(
        html.quote(answer.text), " ", html.badge("right" if answer.right else "wrong", good=answer.right)
    )


def asked(question: str, without: Answer, with_: Answer, reference: str | None = None) -> Markup:
    known = [("Right answer", html.quote(reference))] if reference is not None else []
    both = (answer_row("Without text-rich data", without), answer_row("With text-rich data", with_))
    return html.rows([("Question", html.quote(question)), *known, *both])


# --- what was read and made of it ------------------------------------------------------------------------


def _turns(examples: Iterable[Example], stage: str) -> Iterator[tuple[str, Child]]:
    for example in examples:
        for turn in example.conversation.turns:
            speaker = "user" if turn.role is Role.USER else "assistant"
            yield f"{stage}, {speaker}", html.quote(turn.text)


def _made(made: MadeRows) -> Markup:
    """What was read and what rows came of it."""
    lines = made.reading.lines
    rest = f"... and {len(lines) - _MANY} more lines" if len(lines) > _MANY else None
    read: list[Sequence[Child]] = [
        (html.quote(line.text), f"{line.confidence:.2f}") for line in lines[:_MANY]
    ]
    pairs = [*_turns(made.stage1, "Stage 1"), *_turns(made.stage2, "Stage 2")]
    return html.join(
        html.table(("Read", "Confidence"), read, numeric=(1,))
        if read
        else html.paragraph("No text was read."),
        html.paragraph(rest, kind="note") if rest else None,
        html.rows([("Text that is in it", html.quote(made.truth))]) if made.truth else None,
        html.rows(pairs) if pairs else html.paragraph("No row was made of it.", kind="note"),
        html.bullets(f"Left out at {r.stage}: {r.reason}. {r.detail}" for r in made.rejects)
        if made.rejects
        else None,
    )


def corpus_section(corpus: CorpusSummary) -> Markup:
    tiles = [
        html.tile("Pictures kept", f"{corpus.kept} of {corpus.pictures}"),
        *(html.tile(name, count) for name, count in corpus.rows),
    ]
    if corpus.ocr_cer:
        low, high = (f"{100 * v:.1f}" for v in (corpus.ocr_cer.low, corpus.ocr_cer.high))
        value = f"{100 * corpus.ocr_cer.value:.1f}%"
        note = f"against the exact text of {corpus.ocr_cer.n} pictures; 95% interval {low} to {high}"
        tiles.append(html.tile("Error of the OCR engine", value, note))
    return html.section(
        "What the data was made of",
        html.grid(tiles),
        rejects_part(corpus.rejects),
        html.grid(
            [
                html.card(
                    _made(e),
                    head=opened(e.image, "picture of the corpus with the boxes of its lines", 480, e),
                )
                for e in corpus.examples
            ],
            across=2,
        ),
        intro=f"Read by {corpus.engine}. A row keeps what the engine read, errors included.",
    )


def rejects_part(rejects: Sequence[Reject]) -> Markup:
    if not rejects:
        return html.paragraph("Nothing was left out.", kind="note")
    counts = Counter(f"{r.stage}: {r.reason}" for r in rejects)
    listed: list[Sequence[Child]] = [(r.id, r.stage, r.reason, r.detail) for r in rejects[:200]]
    more = f" (the first 200 of {len(rejects)})" if len(rejects) > 200 else ""
    return html.join(
        html.bars(
            [(name, float(n)) for name, n in counts.most_common()], title="Left out, by step and reason"
        ),
        html.details(f"Each of them{more}", html.table(("Id", "Step", "Reason", "Detail"), listed)),
    )


def own_section(own: Sequence[OwnPicture]) -> Markup:
    return html.section(
        "Your pictures",
        html.grid([_own_card(picture) for picture in own], across=2),
        intro="What the OCR engine read in them, the rows that were made, and what both models say. "
        "Nobody has told the right answers, so nothing here is scored.",
    )


def _own_card(picture: OwnPicture) -> Markup:
    return html.card(
        html.heading(picture.image.name),
        html.paragraph(picture.problem, kind="note") if picture.problem else None,
        *(asked(a.question, a.without, a.with_) for a in picture.answers),
        html.details("What was read, and the rows made of it", _made(picture.made), opened=True)
        if picture.made
        else None,
        head=opened(picture.image, picture.image.name, 640, picture.made),
    )
