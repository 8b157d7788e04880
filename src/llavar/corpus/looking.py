"""The stages of a recipe that look at pictures: which are chosen, clustered, read, and described."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BeforeValidator

from llavar.corpus.agreement import AgreementSettings, AgreementStage
from llavar.corpus.caption import CaptionChoice, CaptionStage
from llavar.corpus.clusters import ClusterChoice, FeatureStage, KeepStage, cluster_stage
from llavar.corpus.descriptor import Descriptor
from llavar.corpus.engines import EngineChoice, factory
from llavar.corpus.ocr import SHORT_EDGE
from llavar.corpus.rows import OcrStage
from llavar.corpus.select import MetadataStage, ModelStage, SelectChoice, TextStage
from llavar.corpus.sight import Sight, required
from llavar.corpus.stage import Stage
from llavar.errors import ConfigError


def _named(value: object) -> object:
    """An engine may be given by its name alone."""
    return {"name": value} if isinstance(value, str) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class OcrChoice:
    """Who reads the pictures, and what one of them may cost."""

    engines: tuple[Annotated[EngineChoice, BeforeValidator(_named)], ...] = (EngineChoice(name="rapidocr"),)
    """By name, or as ``{name: easyocr, models: DIR}``. What the first one reads becomes answers."""
    short_edge: int | None = SHORT_EDGE
    time_limit: float = 60.0
    min_agreement: float | None = None
    """Of the first engine with each of the others, 0 to 1; items with less are rejected."""
    agreement_confidence: float = 0.5
    """Lines that an engine is less sure of take no part in the agreement."""

    def __post_init__(self) -> None:
        if not self.engines:
            raise ConfigError("there are 0 OCR engines, at least 1 is needed; name rapidocr, for example")
        names = [engine.name for engine in self.engines]
        if len(set(names)) < len(names):
            raise ConfigError(f"an OCR engine is named twice among {', '.join(names)}; name it once")
        if self.min_agreement is not None and len(names) < 2:
            raise ConfigError(f"min_agreement is {self.min_agreement}, and 1 engine has nobody to agree with")
        self.agreement()

    def agreement(self) -> AgreementSettings:
        return AgreementSettings(min_agreement=self.min_agreement, min_confidence=self.agreement_confidence)


class Looks(Protocol):
    """The parts of a recipe that this module needs."""

    @property
    def select(self) -> SelectChoice | None: ...
    @property
    def cluster(self) -> ClusterChoice | None: ...
    @property
    def ocr(self) -> OcrChoice: ...
    @property
    def caption(self) -> CaptionChoice | None: ...


def metadata_stages(looks: Looks) -> list[Stage]:
    """What stands before pictures are fetched."""
    return [] if looks.select is None else [MetadataStage(settings=looks.select.metadata)]


def reading_stages(looks: Looks, root: Path, sight: Sight | None) -> list[Stage]:
    """From pictures to readings: a classifier's choice, clusters, OCR, and the choice by what it found.

    Raises:
        ConfigError: a model is named and ``sight`` is None, or an engine cannot be as it is asked for.
        NotFoundError, ModelError, MissingExtraError: a model, a folder or a package is not there.
    """
    select = looks.select
    engines = tuple(factory(choice) for choice in looks.ocr.engines)
    ocr = OcrStage(
        root=root, engines=engines, short_edge=looks.ocr.short_edge, time_limit=looks.ocr.time_limit
    )
    return [
        *([] if select is None or not select.model else [_classified(select, root, sight)]),
        *([] if looks.cluster is None else _clustered(looks.cluster, root, sight)),
        ocr,
        *([AgreementStage(settings=looks.ocr.agreement())] if len(engines) > 1 else []),
        *([] if select is None or select.model else [TextStage(settings=select.text)]),
    ]


def caption_stages(looks: Looks, root: Path, sight: Sight | None) -> list[Stage]:
    """What stands before a teacher. Raises as :func:`reading_stages`."""
    choice = looks.caption
    if choice is None:
        return []
    captioner = required(sight, choice.model).captioner(choice.model, choice.device)
    return [
        CaptionStage(
            root=root,
            captioner=captioner,
            max_side=choice.max_side,
            margin=choice.margin,
            time_limit=choice.time_limit,
        )
    ]


def _classified(select: SelectChoice, root: Path, sight: Sight | None) -> Stage:
    scorer = required(sight, select.model).classifier(select.model, select.label, select.device)
    return ModelStage(root=root, scorer=scorer, min_text=select.min_text, time_limit=select.time_limit)


def _clustered(choice: ClusterChoice, root: Path, sight: Sight | None) -> list[Stage]:
    model = choice.model
    encoder = required(sight, model).encoder(model, choice.device) if model else Descriptor()
    return [
        FeatureStage(root=root, encoder=encoder, time_limit=choice.time_limit),
        cluster_stage(choice),
        KeepStage(settings=choice.pick()),
    ]


# ------------------------------------------------------------------------------------------ paths


def ocr_within(choice: OcrChoice, base: Path) -> OcrChoice:
    """With folders of models relative to ``base``, where the recipe lies."""
    engines = tuple(
        engine if engine.models is None else replace(engine, models=base / engine.models)
        for engine in choice.engines
    )
    return replace(choice, engines=engines)


def cluster_within(choice: ClusterChoice, base: Path) -> ClusterChoice:
    """As :func:`ocr_within`, for saved centres and the model."""
    centres = None if choice.centres is None else base / choice.centres
    return replace(choice, centres=centres, model=model_within(choice.model, base))


def model_within(model: str, base: Path) -> str:
    """A folder beside the recipe, or the id of a hub as it is."""
    return str(base / model) if model and (base / model).is_dir() else model
