"""From the user's pictures to rows to learn from and questions to be asked, with no picture on both sides.

The runner of corpora reads the pictures and leaves out copies: equal files, equal pixels, edited ones. What
stays is divided. Pictures that the user's own questions are about come first in the source, so that of a
picture and its copy the one asked about stays; they are never learned from.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from llavar.corpus.dedup import NEAR, DuplicateReason, NearSettings, NearStage
from llavar.corpus.item import Item, Masked, Origin
from llavar.corpus.layout import LayoutSettings, arrange
from llavar.corpus.looking import OcrChoice
from llavar.corpus.ocr import SHORT_EDGE
from llavar.corpus.ocr import STAGE as OCR
from llavar.corpus.recipe import CorpusRecipe, SourceChoice, save_recipe, stages_of
from llavar.corpus.shards import Corpus
from llavar.corpus.sources import scan_folder, stamp_of
from llavar.corpus.stage import Outcome
from llavar.corpus.teach import TemplateTeacher
from llavar.corpus.teaching.teacher import EndpointTeacher
from llavar.corpus.wordings import QuestionKind, question, rng_for
from llavar.data.source import Reason
from llavar.errors import DataError
from llavar.records import Conversation, Example, Question, Reject, Role, Task
from llavar.study.demo_corpus import OPEN_ALL, Computed, computed
from llavar.study.nano.questions import ABOUT_LINES, some
from llavar.study.progress import Watch
from llavar.study.tune_model import Base
from llavar.study.tune_questions import OwnQuestion

STAGE = "tune"
_NANO_SIDE, _LOWEST, _LOWEST_OWN = 128, 7.0, 10.0
"""Below this side a tower is nano's, where lettering needs a pixel more; and lowest lines in pixels."""

_FULL_EDGE = 960
"""Short edge for OCR where a model sees more than the paper's towers did."""

_LEAST = 2
"""Pictures with text: one to learn from, one to be asked about."""

_SHARE, _MOST = 5, 100
"""A fifth of the pictures is held out, and no more than a hundred."""


class Part(StrEnum):
    """The questions, by what is known about their answers."""

    OWN = "own"
    """The user's, with the user's answers."""
    TEXT = "text"
    """All text of a held-out picture; OCR's reading stands in for the truth."""
    FACTS = "facts"
    """Lines, words and numbers of held-out pictures; OCR's reading stands in for the truth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """The folder; what it holds stands in the fingerprint."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Pictures of ``folder`` by ``names`` below it, after those ``asked`` about (id and file)."""

    folder: Path
    names: tuple[str, ...]
    asked: tuple[tuple[str, Path], ...] = ()
    rejects: tuple[Reject, ...] = ()

    @property
    def settings(self) -> SourceSettings:
        return SourceSettings(path=str(self.folder.absolute()))

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for one in self.items():
            told = one.origin.stamp if isinstance(one, Item) else one.reason
            digest.update(f"{one.id} {told}\n".encode())
        return digest.hexdigest()

    def items(self) -> Iterator[Outcome]:
        yield from self.rejects
        for id, path in self.asked:
            yield _item(id, path.absolute())
        first = {id for id, _ in self.asked}
        for name in self.names:
            if name not in first:
                yield _item(name, (self.folder / name).absolute())


def _item(id: str, path: Path) -> Item:
    return Item(id=id, origin=Origin(source="folder", path=str(path), stamp=stamp_of(path)))


def found_in(folder: Path, out: Path) -> tuple[tuple[str, ...], tuple[Reject, ...]]:
    """Names of the picture files below a folder, and the other files; ``out`` in it is passed over.

    Raises:
        NotFoundError, ConfigError, DataError: there is no such folder, or no picture in it.
    """
    folder = folder.absolute()
    paths, rejects = scan_folder(folder)
    inside = out.resolve()
    names = tuple(p.relative_to(folder).as_posix() for p in paths if not p.resolve().is_relative_to(inside))
    if not names:
        raise DataError(f"the folder {str(folder)!r} holds no picture but those of the run {out}; add some")
    others = (one for one in rejects if not Path(one.id).resolve().is_relative_to(inside))
    return names, tuple(others)


def asked_about(questions: Iterable[OwnQuestion], folder: Path) -> dict[Path, str]:
    """An id for every picture of the user's questions: its name in the folder, or one of its own."""
    ids: dict[Path, str] = {}
    base = folder.absolute()
    for number, path in enumerate(dict.fromkeys(one.picture for one in questions)):
        within = path.is_relative_to(base) and ".." not in path.parts
        ids[path] = path.relative_to(base).as_posix() if within else f"questions/{number:05d}/{path.name}"
    return ids


# ------------------------------------------------------------------------------------------ the corpus


def layout_of(base: Base) -> LayoutSettings:
    """Which lines the model can be expected to read."""
    if base.own_processor:
        return LayoutSettings(target_size=base.sees, min_height=_LOWEST_OWN)
    lowest = _LOWEST + (base.sees < _NANO_SIDE)
    return LayoutSettings(target_size=base.sees, min_height=lowest)


def recipe_of(
    base: Base, folder: Path, *, seed: int, mask: bool, teacher: EndpointTeacher | None
) -> CorpusRecipe:
    """How rows are made: everything that opens is read, copies stay out, offline unless there is a teacher.

    What goes to a teacher is masked in any case.
    """
    edge = SHORT_EDGE if base.sees <= SHORT_EDGE else _FULL_EDGE
    return CorpusRecipe(
        source=SourceChoice(folder=folder.absolute()),
        open=OPEN_ALL,
        select=None,
        near=NearSettings(),
        ocr=OcrChoice(short_edge=edge),
        layout=layout_of(base),
        mask=mask or teacher is not None,
        teacher=teacher or TemplateTeacher(seed=seed),
    )


def compute(root: Path, source: Gathered, recipe: CorpusRecipe, watch: Watch) -> Computed:
    """Read the pictures into the corpus in ``root`` and make rows of them; called again, it goes on."""
    save_recipe(recipe, root)
    made = computed(root, source, stages_of(recipe, root.absolute()), recipe.layout, watch)
    asked = {id for id, _ in source.asked}
    copies = _copies(Corpus(root), asked) if asked else {}
    kept = tuple(item for item in made.kept if item.id not in copies)
    return replace(made, kept=kept, rejects=(*made.rejects, *copies.values()))


def _copies(corpus: Corpus, asked: set[str]) -> dict[str, Reject]:
    """Copies of pictures asked about that are themselves copies of another one asked about.

    Among copies the corpus compares with the one that stays alone, so that a chain could lead from such a
    picture to one that is learned from.
    """
    found: dict[str, Reject] = {}
    ended = [one.item for shard in corpus.rejected(NEAR) for one in shard if one.item.id in asked]
    others = [item for shard in corpus.items(OCR) for item in shard if item.id not in asked]
    for item in ended:
        decided = json.loads(NearStage().decide([[item, *others]]))
        for id, (before, _, detail) in decided.items():
            if before == item.id:
                reason, told = DuplicateReason.NEAR.value, f"{before}, {detail}"
                found[id] = Reject(id=id, stage=STAGE, reason=reason, detail=told)
    return found


# ------------------------------------------------------------------------------------------ both sides


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Rows to learn from with the pictures that they are of, held-out pictures, and what was left out.

    ``unwritable`` counts rows with characters that the model's tokenizer lacks, ``odd`` are some of these.
    """

    rows: tuple[Example, ...]
    training: tuple[Item, ...]
    held_out: tuple[Item, ...]
    rejects: tuple[Reject, ...]
    unwritable: int = 0
    odd: str = ""


def divided(made: Computed, base: Base, asked: Iterable[str], *, held_out: int | None, seed: int) -> Sides:
    """Put every picture with a row on one side.

    Which pictures are held out follows from their pixels and ``seed``, so that more pictures later move none
    of them for their number alone.

    Raises:
        DataError: there are too few pictures with text.
    """
    known = set(asked)
    rows, rejects, odd = _writable([item for item in made.kept if item.id not in known], base)
    usable = [item for item in made.kept if item.id in rows]
    apart = sorted((item for item in usable if _may_be_asked(item)), key=lambda item: _lot(item, seed))
    wanted = min(_MOST, max(1, len(usable) // _SHARE)) if held_out is None else held_out
    least = 1 if known else _LEAST
    if len(usable) < least or (wanted >= len(usable) and not known):
        raise DataError(_too_few(len(usable), wanted, made, rejects, base))
    chosen = apart[: min(wanted, len(usable) - 1)]
    if not chosen and not known:
        raise DataError("no picture can be held out: each has personal data that --mask hides; leave it out")
    outside = {item.id for item in chosen}
    training = tuple(item for item in usable if item.id not in outside)
    return Sides(
        rows=tuple(row for item in training for row in rows[item.id]),
        training=training,
        held_out=tuple(chosen),
        rejects=(*made.rejects, *rejects),
        unwritable=len(rejects),
        odd=odd,
    )


def _may_be_asked(item: Item) -> bool:
    """Whether all text of a picture is known: a row is there, and nothing in it was masked."""
    return item.stage1 is not None and item.masked == Masked()


def _lot(item: Item, seed: int) -> str:
    pixels = item.id if item.fingerprint is None else item.fingerprint.pixels
    return hashlib.sha256(f"{seed} {pixels}".encode()).hexdigest()


def _too_few(usable: int, wanted: int, made: Computed, rejects: Sequence[Reject], base: Base) -> str:
    most = reasons_of((*made.rejects, *rejects))
    why = f"; left out: {most}" if most else ""
    if usable > 1:
        return f"{wanted} pictures are to be held out of {usable} with text; give --held-out less"
    return (
        f"{usable} of {len(made.read)} pictures have text that {base.name} can learn to read (it sees "
        f"{base.sees} pixels), and at least {_LEAST} are needed{why}; add pictures with larger text, or name "
        "another --model"
    )


def reasons_of(rejects: Iterable[Reject], most: int = 3) -> str:
    """The most frequent reasons with their counts."""
    counts = Counter(one.reason for one in rejects).most_common()
    more = f" and {len(counts) - most} more reasons" if len(counts) > most else ""
    return ", ".join(f"{count} {reason}" for reason, count in counts[:most]) + more


def _writable(items: Iterable[Item], base: Base) -> tuple[dict[str, tuple[Example, ...]], list[Reject], str]:
    """Rows by picture that the model's tokenizer can write, the others, and characters that it lacks."""
    rows: dict[str, tuple[Example, ...]] = {}
    rejects: list[Reject] = []
    odd: dict[str, None] = {}
    for item in items:
        kept: list[Example] = []
        for row in rows_of(item):
            lacking = _lacking(row, base)
            if lacking:
                odd |= dict.fromkeys(lacking)
                detail = f"in an answer: {' '.join(lacking[:8])}"
                rejects.append(Reject(id=row.id, stage=STAGE, reason=Reason.UNWRITABLE, detail=detail))
            else:
                kept.append(row)
        if kept:
            rows[item.id] = tuple(kept)
    return rows, rejects, " ".join(list(odd)[:8])


def _lacking(row: Example, base: Base) -> list[str]:
    """Characters of the answers that the tokenizer lacks, each once."""
    said = "".join(turn.text for turn in row.conversation.turns if turn.role is Role.ASSISTANT)
    if base.writes(said):
        return []
    return [char for char in dict.fromkeys(said) if not base.writes(char)] or [said[:1]]


def rows_of(item: Item) -> Iterator[Example]:
    """The noisy reading of a picture, and the conversation about it; images are ids."""
    if item.stage1 is not None:
        yield _row(item, "text", item.stage1)
    if item.stage2 is not None:
        yield _row(item, "talk", item.stage2.conversation)


def _row(item: Item, kind: str, conversation: Conversation) -> Example:
    return Example(id=f"{item.id}#{kind}", conversation=conversation, images=(item.id,))


# ------------------------------------------------------------------------------------------ the exam


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """What is asked before and after: questions by part, with their pictures below ``root``/part."""

    root: Path
    parts: Mapping[Part, tuple[Question, ...]]

    @property
    def count(self) -> int:
        return sum(len(questions) for questions in self.parts.values())

    def picture(self, part: Part, asked: Question) -> Path:
        return self.root / part / asked.image


def exam_of(
    root: Path, held_out: Sequence[Item], own: Sequence[OwnQuestion], layout: LayoutSettings, seed: int
) -> Exam:
    """Write the questions below ``root``, each part as ``llavar eval --tasks folder`` reads it.

    Pictures are links to where they are, or copies where links cannot be.
    """
    drafts: dict[Part, list[tuple[Question, Path]]] = {
        Part.OWN: [(_own(one), one.picture) for one in own],
        Part.TEXT: [],
        Part.FACTS: [],
    }
    for item in held_out:
        for part, asked in _about(item, layout, seed):
            drafts[part].append((asked, Path(item.origin.path)))
    shutil.rmtree(root, ignore_errors=True)
    parts = {part: _written(root / part, pairs) for part, pairs in drafts.items() if pairs}
    return Exam(root=root, parts=parts)


def _own(one: OwnQuestion) -> Question:
    return Question(
        id=one.id, task=Task.VQA, image="", text=one.text, references=one.answers, category=one.category
    )


def _about(item: Item, layout: LayoutSettings, seed: int) -> Iterator[tuple[Part, Question]]:
    """Questions about a held-out picture, in wordings that no row has; yes and no come in pairs."""
    assert item.stage1 is not None
    rng = rng_for(seed, "exam", item.id)
    text = item.stage1.turns[-1].text
    asked = question(QuestionKind.TRANSCRIBE, rng, held_out=True)
    yield Part.TEXT, Question(id=item.id, task=Task.TRANSCRIPTION, image="", text=asked, references=(text,))
    for one in _facts(item, layout, rng):
        yield Part.FACTS, one


def _facts(item: Item, layout: LayoutSettings, rng: random.Random) -> Iterator[Question]:
    arranged = arrange(item.readings[0], layout)
    known = tuple(TemplateTeacher().about_text(arranged.reading, arranged.dropped, rng))
    yield from some(known, ABOUT_LINES, Task.VQA, item.id, rng, 2, held_out=True)
    yield from some(known, (QuestionKind.WORD_PRESENT,), Task.YES_NO, item.id, rng, 2, held_out=True)


def _written(folder: Path, drafts: Sequence[tuple[Question, Path]]) -> tuple[Question, ...]:
    """The questions with the names of their pictures in ``folder``, written there."""
    (folder / "pictures").mkdir(parents=True)
    names: dict[Path, str] = {}
    made: list[Question] = []
    for asked, path in drafts:
        if path not in names:
            names[path] = f"pictures/{len(names):05d}{path.suffix.lower()}"
            _link(folder / names[path], path)
        made.append(replace(asked, image=names[path]))
    lines = (
        {"id": q.id, "image": q.image, "question": q.text, "answers": list(q.references)}
        | ({"category": q.category} if q.category else {})
        for q in made
    )
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return tuple(made)


def _link(place: Path, target: Path) -> None:
    try:
        place.symlink_to(target.absolute())
    except OSError:
        shutil.copyfile(target, place)


def exam_digest(exam: Exam) -> str:
    """What tells two exams apart, in 16 digits."""
    return hashlib.sha256(repr(sorted(exam.parts.items())).encode("utf-8", "backslashreplace")).hexdigest()[
        :16
    ]
