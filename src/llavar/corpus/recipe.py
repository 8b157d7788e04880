"""What a corpus is made of and how, as one YAML file; and the stages that follow from it.

Adding a stage touches its own module and the list in :func:`stages_of`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from llavar.corpus.dedup import ExactStage, NearSettings, NearStage
from llavar.corpus.fetch import FetchSettings, FetchStage
from llavar.corpus.layout import LayoutSettings
from llavar.corpus.ocr import SHORT_EDGE, EngineFactory, RapidOcr
from llavar.corpus.opening import OpenSettings, OpenStage
from llavar.corpus.pairs import PairSettings
from llavar.corpus.rows import OcrStage, PairsSettings, PairsStage, TeachSettings, TemplateTeachStage
from llavar.corpus.sources import Columns, Folder, Tables
from llavar.corpus.stage import Source, Stage
from llavar.corpus.teach import TemplateTeacher
from llavar.errors import ConfigError, LlavarError, NotFoundError

_ENGINES: dict[str, EngineFactory] = {"rapidocr": RapidOcr}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChoice:
    """Where pictures come from. Paths are relative to the recipe's folder."""

    folder: Path | None = None
    """A folder of pictures; they stay where they are."""
    tables: tuple[Path, ...] = ()
    """Parquet, JSONL or JSON files with a column of URLs."""
    columns: Columns = field(default_factory=Columns)
    name: str = ""
    """What the source is called in the provenance of a row; by default its folder's or first table's name."""

    def __post_init__(self) -> None:
        if (self.folder is None) == (not self.tables):
            raise ConfigError("a source is either a folder or tables; name one of the two")


@dataclass(frozen=True, slots=True, kw_only=True)
class OcrChoice:
    """Who reads the pictures, and what one of them may cost."""

    engines: tuple[str, ...] = ("rapidocr",)
    short_edge: int | None = SHORT_EDGE
    time_limit: float = 60.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.engines if name not in _ENGINES]
        if unknown or not self.engines:
            wrong = repr(unknown[0]) if unknown else "missing"
            raise ConfigError(f"the OCR engine is {wrong}; known are {', '.join(_ENGINES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRecipe:
    """Everything that decides what a corpus holds, but for ``workers``, which decides how soon."""

    source: SourceChoice
    shard_rows: int = 1000
    workers: int | None = None
    fetch: FetchSettings = field(default_factory=FetchSettings)
    open: OpenSettings = field(default_factory=OpenSettings)
    ocr: OcrChoice = field(default_factory=OcrChoice)
    near: NearSettings | None = field(default_factory=NearSettings)
    """What counts as an edited copy; null keeps them."""
    layout: LayoutSettings = field(default_factory=LayoutSettings)
    pairs: PairSettings = field(default_factory=PairSettings)
    teacher: TemplateTeacher = field(default_factory=TemplateTeacher)


def read_recipe(path: Path) -> CorpusRecipe:
    """A recipe from a YAML file.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no YAML, or holds something unknown; the message names the place.
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
    return recipe


def source_of(recipe: CorpusRecipe, base: Path) -> Source:
    """The source of a recipe that lies in the folder ``base``."""
    choice = recipe.source
    if choice.folder is not None:
        return Folder(path=base / choice.folder, name=choice.name or choice.folder.name)
    paths = tuple(base / path for path in choice.tables)
    return Tables(paths=paths, columns=choice.columns, name=choice.name or paths[0].name)


def stages_of(recipe: CorpusRecipe, root: Path) -> list[Stage]:
    """The stages of a recipe whose corpus lies in ``root``, in their order."""
    engines = tuple(_ENGINES[name] for name in recipe.ocr.engines)
    reading = OcrStage(
        root=root, engines=engines, short_edge=recipe.ocr.short_edge, time_limit=recipe.ocr.time_limit
    )
    return [
        *([] if recipe.source.folder is not None else [FetchStage(root=root, settings=recipe.fetch)]),
        OpenStage(root=root, settings=recipe.open),
        ExactStage(),
        reading,
        *([] if recipe.near is None else [NearStage(settings=recipe.near)]),
        PairsStage(settings=PairsSettings(layout=recipe.layout, pairs=recipe.pairs)),
        TemplateTeachStage(settings=TeachSettings(layout=recipe.layout, teacher=recipe.teacher)),
    ]
