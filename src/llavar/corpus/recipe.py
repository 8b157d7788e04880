"""What a corpus is made of and how, as one YAML file; and the stages that follow from it.

Adding a stage touches its own module and the list in :func:`stages_of`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from llavar.corpus.caption import CaptionChoice
from llavar.corpus.clusters import ClusterChoice
from llavar.corpus.decontaminate import LeakChoice
from llavar.corpus.dedup import ExactStage, NearSettings, NearStage
from llavar.corpus.fetch import FetchSettings, FetchStage
from llavar.corpus.img2dataset import Img2dataset
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.looking import (
    OcrChoice,
    caption_stages,
    cluster_within,
    metadata_stages,
    model_within,
    ocr_within,
    reading_stages,
)
from llavar.corpus.opening import OpenSettings, OpenStage
from llavar.corpus.pairs import PairSettings
from llavar.corpus.products import ProductChoice
from llavar.corpus.removed import removed_stages
from llavar.corpus.rows import PairsSettings, PairsStage, Rows, TeachSettings, TemplateTeachStage
from llavar.corpus.select import SelectChoice
from llavar.corpus.sight import Sight
from llavar.corpus.sources import Columns, Folder, Tables
from llavar.corpus.stage import Source, Stage
from llavar.corpus.teach import TemplateTeacher
from llavar.corpus.teaching.choice import TeacherChoice
from llavar.corpus.teaching.prompt import read_prompt
from llavar.corpus.teaching.stage import EndpointTeachStage
from llavar.corpus.teaching.teacher import EndpointTeacher
from llavar.errors import ConfigError, LlavarError, NotFoundError

SAVED = "recipe.json"
"""The recipe of the last run, in the folder of the corpus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChoice:
    """Where pictures come from. Paths are relative to the recipe's folder."""

    folder: Path | None = None
    """A folder of pictures; they stay where they are."""
    img2dataset: Path | None = None
    """The ``output_folder`` of img2dataset: pictures that are there already, with their URLs and captions."""
    tables: tuple[Path, ...] = ()
    """Parquet, JSONL or JSON files with a column of URLs."""
    columns: Columns = field(default_factory=Columns)
    name: str = ""
    """What the source is called in the provenance of a row; by default its folder's or first table's name."""

    def __post_init__(self) -> None:
        if sum(map(bool, (self.folder, self.img2dataset, self.tables))) != 1:
            raise ConfigError("a source is a folder, img2dataset's output or tables; name one of the three")

    @property
    def pictures(self) -> Path | None:
        """The folder where pictures are; None where they are to be fetched."""
        return self.folder or self.img2dataset

    def within(self, base: Path) -> SourceChoice:
        """With whole paths, those given being relative to ``base``."""
        return replace(
            self,
            folder=self.folder and (base / self.folder).absolute(),
            img2dataset=self.img2dataset and (base / self.img2dataset).absolute(),
            tables=tuple((base / path).absolute() for path in self.tables),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRecipe:
    """Everything that decides what a corpus holds, but for ``workers``, which decides how soon."""

    source: SourceChoice
    shard_rows: int = 1000
    workers: int | None = None
    fetch: FetchSettings = field(default_factory=FetchSettings)
    open: OpenSettings = field(default_factory=OpenSettings)
    select: SelectChoice | None = field(default_factory=SelectChoice)
    """Which pictures are text-rich and fit to be used; null takes all."""
    cluster: ClusterChoice | None = None
    """Clusters, of which a person picks some; null makes none."""
    ocr: OcrChoice = field(default_factory=OcrChoice)
    decontaminate: LeakChoice | None = None
    """Hashes of evaluation sets whose pictures stay out; null looks for none."""
    near: NearSettings | None = field(default_factory=NearSettings)
    """What counts as an edited copy; null keeps them."""
    caption: CaptionChoice | None = None
    """Who describes pictures whose text is painted over; null leaves it out."""
    layout: LayoutSettings = field(default_factory=LayoutSettings)
    pairs: PairSettings = field(default_factory=PairSettings)
    rows: Rows = Rows.BOTH
    mask: bool = True
    """E-mail addresses and numbers of telephones, cards and accounts are masked in all rows."""
    teacher: TeacherChoice = field(default_factory=TemplateTeacher)
    products: ProductChoice = field(default_factory=ProductChoice)


_RECIPE = TypeAdapter(CorpusRecipe)


def read_recipe(path: Path) -> CorpusRecipe:
    """A recipe from a YAML file.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no YAML, or holds something unknown; the message names the place. Or a file of
            wordings that it names is of no use.
    """
    import yaml

    if not path.is_file():
        raise NotFoundError(
            f"there is no recipe {str(path)!r}; name a YAML file, with  source: {{folder: ...}}"
        )
    try:
        found: object = yaml.safe_load(path.read_bytes())
        recipe = TypeAdapter(CorpusRecipe).validate_python(found, extra="forbid")
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())[:200]}; mend it") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {where}: {said}; mend the recipe") from None
    except LlavarError as error:
        raise ConfigError(f"{path}: {error}") from error
    return _within(recipe, path.parent)


def _within(recipe: CorpusRecipe, base: Path) -> CorpusRecipe:
    """With the files that a recipe names relative to its folder."""
    select, cluster, caption, teacher = recipe.select, recipe.cluster, recipe.caption, recipe.teacher
    return replace(
        recipe,
        source=recipe.source.within(base),
        pairs=recipe.pairs.within(base),
        products=recipe.products.within(base),
        decontaminate=recipe.decontaminate and recipe.decontaminate.within(base),
        ocr=ocr_within(recipe.ocr, base),
        select=select and replace(select, model=model_within(select.model, base)),
        cluster=cluster and cluster_within(cluster, base),
        caption=caption and replace(caption, model=model_within(caption.model, base)),
        teacher=teacher.within(base) if isinstance(teacher, EndpointTeacher) else teacher,
    )


def source_of(recipe: CorpusRecipe, base: Path) -> Source:
    """The source of a recipe that lies in the folder ``base``."""
    choice = recipe.source
    if choice.folder is not None:
        return Folder(path=base / choice.folder, name=choice.name or choice.folder.name)
    if choice.img2dataset is not None:
        path, name = base / choice.img2dataset, choice.name or choice.img2dataset.name
        return Img2dataset(path=path, columns=choice.columns, name=name)
    paths = tuple(base / path for path in choice.tables)
    return Tables(paths=paths, columns=choice.columns, name=choice.name or paths[0].name)


def stages_of(recipe: CorpusRecipe, root: Path, sight: Sight | None = None) -> list[Stage]:
    """The stages of a recipe whose corpus lies in ``root``, in their order; ``sight`` runs models it names.

    Raises:
        LlavarError: an engine, a model or a file that the recipe names is not there, or not as it says.
    """
    source = recipe.source
    return [
        *([] if source.folder is not None else metadata_stages(recipe)),
        *([FetchStage(root=root, settings=recipe.fetch)] if source.pictures is None else []),
        OpenStage(root=root, settings=recipe.open),
        *removed_stages(root),
        ExactStage(),
        *([] if recipe.decontaminate is None else [recipe.decontaminate.stage()]),
        *reading_stages(recipe, root, sight),
        *([] if recipe.near is None else [NearStage(settings=recipe.near)]),
        *caption_stages(recipe, root, sight),
        *_row_stages(recipe, root),
    ]


def _row_stages(recipe: CorpusRecipe, root: Path) -> list[Stage]:
    layout, mask = recipe.layout, recipe.mask
    pairs = PairsSettings(layout=layout, pairs=recipe.pairs, mask=mask, required=recipe.rows is Rows.STAGE1)
    return [
        *([] if recipe.rows is Rows.STAGE2 else [PairsStage(settings=pairs)]),
        *([] if recipe.rows is Rows.STAGE1 else [teach_stage(recipe, root)]),
    ]


def teach_stage(recipe: CorpusRecipe, root: Path) -> TemplateTeachStage | EndpointTeachStage:
    """The teacher of a recipe whose corpus lies in ``root``.

    Raises:
        ConfigError, NotFoundError: a file of its prompt is of no use.
    """
    teacher = recipe.teacher
    if not isinstance(teacher, EndpointTeacher):
        settings = TeachSettings(layout=recipe.layout, teacher=teacher, mask=recipe.mask)
        return TemplateTeachStage(settings=settings)
    prompt = read_prompt(teacher.prompt, teacher.examples, teacher.look_prompt)
    return EndpointTeachStage(
        root=root, teacher=teacher, prompt=prompt, layout=recipe.layout, mask=recipe.mask
    )


def save_recipe(recipe: CorpusRecipe, root: Path) -> None:
    """Leave a recipe in its corpus, for commands that are given the corpus alone."""
    root.mkdir(parents=True, exist_ok=True)
    aside = root / (SAVED + ".part")
    aside.write_bytes(_RECIPE.dump_json(recipe, indent=1))
    aside.replace(root / SAVED)


def saved_recipe(root: Path) -> CorpusRecipe:
    """The recipe of the last run.

    Raises:
        NotFoundError: there is no corpus in ``root``.
        ConfigError: it was saved by another version.
    """
    if not (root / SAVED).is_file():
        raise NotFoundError(f"{root} holds no corpus: there is no {SAVED}; name the --out of a run")
    try:
        return _RECIPE.validate_json((root / SAVED).read_bytes(), extra="forbid")
    except (ValidationError, LlavarError) as error:
        raise ConfigError(f"{root / SAVED} is of another version; run the recipe again") from error
