"""The corpora of ``llavar demo``: of rendered scenes and of the user's own pictures.

The runner of corpora makes them, and they stay where they were made, for ``llavar corpus status`` and
``explain``. Beside the stages of one lies what a demo is about: ``stage1.json``, ``stage2.json``, and
``rejects.jsonl`` with all that was left out. Nothing is chosen: whatever can be opened is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath

from llavar import files
from llavar.corpus.item import Item, Origin
from llavar.corpus.layout import LayoutSettings, arrange
from llavar.corpus.manifest import Manifest
from llavar.corpus.ocr import STAGE as OCR
from llavar.corpus.open_shard import OnStep, Step
from llavar.corpus.opening import STAGE as OPEN
from llavar.corpus.opening import OpenSettings
from llavar.corpus.pairs import STAGE as PAIRS
from llavar.corpus.recipe import CorpusRecipe, SourceChoice, save_recipe, source_of, stages_of
from llavar.corpus.rows import TemplateTeachStage, path_of
from llavar.corpus.shards import MANIFEST, SCAN, Corpus
from llavar.corpus.sources import stamp_of
from llavar.corpus.stage import Outcome, Source, Stage
from llavar.corpus.teach import STAGE as TEACH
from llavar.corpus.teach import TemplateTeacher
from llavar.corpus.wordings import SceneFacts
from llavar.data.source import write_rows
from llavar.records import Conversation, Example, Line, Reading, Reject
from llavar.study.progress import Watch

STAGE1, STAGE2, REJECTS = "stage1.json", "stage2.json", "rejects.jsonl"

OPEN_ALL = OpenSettings(min_side=1, max_ratio=1e6)
"""Whoever shows pictures to a demo wants to see what becomes of each of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What was made of some pictures. ``readings`` is by picture id."""

    readings: Mapping[str, Reading]
    stage1: tuple[Example, ...]
    stage2: tuple[Example, ...]
    rejects: tuple[Reject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneTeacher:
    """A teacher who also knows what was drawn; ``facts`` are by the names of the pictures' files."""

    template: TemplateTeacher
    facts: Mapping[str, SceneFacts]

    def teach(
        self, reading: Reading, facts: SceneFacts | None = None, *, dropped: Sequence[Line] = ()
    ) -> Conversation | Reject:
        """As :class:`~llavar.corpus.teach.Teacher`."""
        known = facts or self.facts.get(PurePath(reading.image).name)
        return self.template.teach(reading, known, dropped=dropped)


# ------------------------------------------------------------------------------------------ sources


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceName:
    """All that is set of a source here: what it holds stands in its fingerprint."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Pictures of the demo's own, by ``names`` below ``folder``, which is relative to the corpus in ``root``.

    So a demo that was moved reads nothing again. Ids are the names.
    """

    root: Path
    folder: Path
    names: tuple[str, ...]

    @property
    def settings(self) -> SourceName:
        return SourceName(name="drawn")

    def fingerprint(self) -> str:
        return _digest(f"{item.id} {item.origin.stamp}" for item in self.items())

    def items(self) -> Iterator[Item]:
        for name in self.names:
            path = self.folder / name
            origin = Origin(source="drawn", path=path.as_posix(), stamp=stamp_of(self.root / path))
            yield Item(id=name, origin=origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What a stage of another corpus has kept: nothing before it is done again."""

    corpus: Corpus
    stage: str

    @property
    def settings(self) -> SourceName:
        return SourceName(name=self.stage)

    def fingerprint(self) -> str:
        with Manifest(self.corpus.root / MANIFEST) as manifest:
            return _digest(record.sha256 for record in manifest.records(self.stage))

    def items(self) -> Iterator[Outcome]:
        for items in self.corpus.items(self.stage):
            yield from items


def _digest(lines: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# ------------------------------------------------------------------------------------------ to rows


def read_drawn(drawn: Drawn, teacher: SceneTeacher, layout: LayoutSettings, watch: Watch) -> Built:
    """Rows of rendered pictures; their images are the names. Stopped at any moment, it goes on."""
    recipe = _recipe(drawn.root / drawn.folder, layout, mask=False)  # made up, all of it
    stages = [
        replace(stage, settings=replace(stage.settings, teacher=teacher))
        if isinstance(stage, TemplateTeachStage)
        else stage
        for stage in stages_of(recipe, drawn.root.absolute())
    ]
    return _made(drawn.root, drawn, stages, layout, watch, image=lambda item: item.id)


def read_own(
    folder: Path, out: Path, out_nano: Path, nano: LayoutSettings, watch: Watch
) -> tuple[Built, Built]:
    """Rows of the user's pictures for a tower of full size, and the same readings seen at nano's scale."""
    recipe = _recipe(folder.absolute(), LayoutSettings(), mask=True)
    save_recipe(recipe, out)
    source, stages = source_of(recipe, Path()), stages_of(recipe, out.absolute())
    full = _made(out, source, stages, recipe.layout, watch, image=path_of)
    small = stages_of(replace(recipe, layout=nano), out_nano.absolute())
    rows = [stage for stage in small if stage.name in (PAIRS, TEACH)]
    earlier = Earlier(corpus=Corpus(out), stage=OCR)
    return full, _made(out_nano, earlier, rows, nano, watch, image=path_of, read_at=SCAN)


def _recipe(folder: Path, layout: LayoutSettings, *, mask: bool) -> CorpusRecipe:
    source = SourceChoice(folder=folder)
    return CorpusRecipe(source=source, open=OPEN_ALL, select=None, near=None, layout=layout, mask=mask)


def _made(
    root: Path,
    source: Source,
    stages: Sequence[Stage],
    layout: LayoutSettings,
    watch: Watch,
    *,
    image: Callable[[Item], str],
    read_at: str = OCR,
) -> Built:
    """Compute a corpus and write its rows and rejects into its folder; ``read_at`` has the readings."""
    found = computed(root, source, stages, layout, watch, read_at=read_at)
    taught = [(item, item.stage2.conversation) for item in found.kept if item.stage2 is not None]
    built = Built(
        readings={item.id: replace(item.readings[0], image=image(item)) for item in found.read},
        stage1=tuple(_row(item, item.stage1, image) for item in found.kept if item.stage1 is not None),
        stage2=tuple(_row(item, said, image) for item, said in taught),
        rejects=found.rejects,
    )
    write_rows(built.stage1, root / STAGE1)
    write_rows(built.stage2, root / STAGE2)
    write_rejects(built.rejects, root / REJECTS)
    return built


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What a corpus holds: pictures that were read, those that came through all stages, what was left out."""

    read: tuple[Item, ...]
    kept: tuple[Item, ...]
    rejects: tuple[Reject, ...]


def computed(
    root: Path,
    source: Source,
    stages: Sequence[Stage],
    layout: LayoutSettings,
    watch: Watch,
    *,
    read_at: str = OCR,
) -> Computed:
    """Compute what is not done yet of the corpus in ``root``; ``read_at`` is the stage with the readings."""
    corpus = Corpus(root)
    corpus.run(source, stages, on_step=_telling(watch))
    names = [SCAN, *(stage.name for stage in stages)]
    read = tuple(item for items in corpus.items(read_at) for item in items)
    kept = tuple(item for items in corpus.items(names[-1]) for item in items)
    rejects = (*_left_out(corpus, names), *_dropped(read, layout), *_missing(kept))
    return Computed(read=read, kept=kept, rejects=rejects)


def write_rejects(rejects: Sequence[Reject], path: Path) -> None:
    """One JSON object to a line."""
    with files.replacing_text(path, durable=True) as file:
        file.writelines(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in rejects)


def _row(item: Item, said: Conversation, image: Callable[[Item], str]) -> Example:
    return Example(id=item.id, conversation=said, images=(image(item),))


def _left_out(corpus: Corpus, names: Sequence[str]) -> Iterator[Reject]:
    """Items that ended in a stage, with the notes that they had by then."""
    for one in (one for name in names for ended in corpus.rejected(name) for one in ended):
        yield from one.item.notes
        yield one.reject


def _dropped(read: Sequence[Item], layout: LayoutSettings) -> Iterator[Reject]:
    """Lines that take no part in any row."""
    for item in read:
        yield from (replace(one, id=item.id) for one in arrange(item.readings[0], layout).rejects)


def _missing(kept: Sequence[Item]) -> Iterator[Reject]:
    """Rows that an item does not have, having the other one."""
    return (note for item in kept for note in item.notes)


def _telling(watch: Watch) -> OnStep:
    def tell(step: Step) -> None:
        if step.note and step.stage in (OPEN, OCR):
            watch.say(f"  {step.note}")
        if step.stage == OCR:
            watch.count(step.done, step.total)

    return tell
