"""Parts of making a corpus that one may ask for by name, and the stage of a recipe that each ends with."""

from __future__ import annotations

from enum import StrEnum

from llavar.corpus import agreement, fetch, ocr, pairs, teach
from llavar.corpus.clusters import CLUSTER
from llavar.corpus.dedup import EXACT, NEAR
from llavar.corpus.recipe import CorpusRecipe
from llavar.corpus.rows import Rows
from llavar.corpus.select import SELECT
from llavar.errors import ConfigError


class Part(StrEnum):
    """What a recipe is computed up to."""

    FETCH = "fetch"
    SELECT = "select"
    CLUSTER = "cluster"
    DEDUP = "dedup"
    OCR = "ocr"
    PAIRS = "pairs"
    TEACH = "teach"


def last_stage(recipe: CorpusRecipe, part: Part) -> str:
    """The stage after which a part is done.

    Raises:
        ConfigError: the recipe has no such part.
    """
    missing = _missing(recipe, part)
    if missing:
        raise ConfigError(f"the recipe leaves nothing to do for {part.value!r}: {missing}")
    if part is Part.DEDUP:
        return EXACT if recipe.near is None else NEAR
    if part is Part.OCR:
        return ocr.STAGE if len(recipe.ocr.engines) == 1 else agreement.STAGE
    return _STAGES[part]


_STAGES = {
    Part.FETCH: fetch.STAGE,
    Part.SELECT: SELECT,
    Part.CLUSTER: CLUSTER,
    Part.PAIRS: pairs.STAGE,
    Part.TEACH: teach.STAGE,
}


def _missing(recipe: CorpusRecipe, part: Part) -> str:
    """Why a recipe does not have a part, and what to do about it; empty if it has."""
    if part is Part.FETCH and recipe.source.pictures is not None:
        return (
            f"the pictures of {recipe.source.pictures} are there already; name tables of URLs as its source, "
            "or go on with  llavar corpus ocr"
        )
    if part is Part.SELECT and recipe.select is None:
        return "it says  select: null,  which takes all pictures; leave that out, or go on with what follows"
    if part is Part.CLUSTER and recipe.cluster is None:
        return "write  cluster: {count: 100}  into it"
    if part is Part.PAIRS and recipe.rows is Rows.STAGE2:
        return "it says  rows: stage2;  write  rows: both,  or go on with  llavar corpus teach"
    if part is Part.TEACH and recipe.rows is Rows.STAGE1:
        return "it says  rows: stage1;  write  rows: both"
    return ""
