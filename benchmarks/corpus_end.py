"""The whole pipeline on rendered scenes beside its engine alone: part ``end`` of benchmarks/corpus.py."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from llavar.corpus.engines.rapidocr import RapidOcr
from llavar.corpus.item import Item
from llavar.corpus.recipe import read_recipe, source_of, stages_of
from llavar.corpus.rows import OcrStage
from llavar.corpus.shards import Corpus, RunSettings
from llavar.corpus.stage import Outcome
from llavar.records import Line
from llavar.render.layouts import Style, page, scene
from llavar.render.paint import paint

SIDE = 384
TIMES = "LLAVAR_BENCHMARK_TIMES"


class TimedRapidOcr(RapidOcr):
    """RapidOCR that notes how long it took, itself alone."""

    name: ClassVar[str] = RapidOcr.name

    def __init__(self) -> None:
        with noted("load"):
            super().__init__()

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        with noted("read"):
            return super().read(image)


class TimedOcr(OcrStage):
    """Notes what it takes to open a picture and read it, which an engine by itself has to do as well."""

    def __call__(self) -> Callable[[Item], Outcome]:
        work = super().__call__()

        def read(item: Item) -> Outcome:
            with noted("item"):
                return work(item)

        return read


@contextmanager
def noted(what: str) -> Iterator[None]:
    """Write down the seconds of the clock, and of this process's processor, that something takes."""
    started, cpu = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    file = os.open(os.environ[TIMES], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)  # in microseconds
    os.write(file, f"{what} {seconds} {cpu}\n".encode())
    os.close(file)


RECIPE = "source: {folder: pictures}\nworkers: 1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A corpus and what it took. ``seconds`` by the clock; ``cpu`` those of all processors together."""

    corpus: Corpus
    seconds: float
    cpu: float
    reading: float
    opening: float
    """With the opening of the pictures before they are read."""
    loading: float
    cpu_of: Mapping[str, float]
    """Of that: of the engine (``read``), with the opening of the pictures (``item``), and to load it."""


class Scenes:
    """Corpora of rendered scenes in a folder of their own, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[int, Made] = {}

    def corpus(self, count: int) -> Made:
        """Of ``count`` pictures, three in four of them scenes and one a page of text."""
        if count not in self._made:
            self._made[count] = made(self._folder / f"{count}", count)
        return self._made[count]


def made(folder: Path, count: int) -> Made:
    """A corpus of ``count`` rendered pictures by one process that reads."""
    (folder / "pictures").mkdir(parents=True)
    for number in range(count):
        draw = page if number % 4 == 3 else scene
        paint(draw(f"end-{number}", Style(min_lines=2)), SIDE).save(folder / "pictures" / f"{number:05d}.png")
    (folder / "recipe.yaml").write_text(RECIPE)
    os.environ[TIMES] = str(folder / "times")
    recipe, out = read_recipe(folder / "recipe.yaml"), folder / "corpus"
    timed = TimedOcr(root=out, engines=(TimedRapidOcr,))
    stages = [timed if isinstance(stage, OcrStage) else stage for stage in stages_of(recipe, out)]
    corpus = Corpus(out)
    started, cpu = time.perf_counter(), _cpu()
    settings = RunSettings(shard_rows=recipe.shard_rows, workers=1)
    corpus.run(source_of(recipe, folder), stages, settings=settings)
    seconds, cpu = time.perf_counter() - started, _cpu() - cpu
    took, cpu_of = Counter[str](), Counter[str]()
    for line in (folder / "times").read_text().splitlines():
        what, one, of_it = line.split()
        took[what] += float(one)
        cpu_of[what] += float(of_it)
    return Made(
        corpus=corpus,
        seconds=seconds,
        cpu=cpu,
        reading=took["read"],
        opening=took["item"],
        loading=took["load"],
        cpu_of=cpu_of,
    )


def _cpu() -> float:
    """Seconds of processors, of this process and of those that it has ended."""
    return sum(os.times()[:4])


def end(scenes: Scenes, count: int) -> dict[str, Any]:
    """Two runs, one of a quarter: what a picture costs does not depend on how long starting takes.

    An engine by itself has to open pictures as well: what the pipeline takes beyond both is its overhead.
    What it takes beyond the engine alone, whose picture is open already, stands beside it.
    """
    few = max(1, count // 4)
    short, long = scenes.corpus(few), scenes.corpus(count)
    chain = long.corpus.chain()
    readings = [item.readings[0] for items in long.corpus.items("ocr") for item in items]
    rows = [item for items in long.corpus.items(chain[-1].stage) for item in items]
    engine, whole = long.reading - short.reading, long.seconds - short.seconds
    return {
        "pictures": count,
        "seconds": round(long.seconds, 2),
        "seconds_of_the_engine": round(long.reading, 2),
        "seconds_to_load_it": round(long.loading, 2),
        "seconds_a_picture": round(whole / (count - few), 4),
        "overhead_over_opening_and_engine": round(whole / (long.opening - short.opening) - 1, 4),
        "overhead_over_the_engine": round(whole / engine - 1, 4),
        "overhead_with_start": round(long.seconds / long.opening - 1, 4),
        "milliseconds_a_picture_by_stage": _by_stage(short, long, count - few),
        "processor": _processor(short, long, count - few),
        "pictures_an_hour": round(3600 * (count - few) / whole),
        "pictures_an_hour_a_core": round(3600 * (count - few) / (long.cpu - short.cpu)),
        "lines_a_picture": round(sum(len(one.lines) for one in readings) / len(readings), 1),
        "stage1_rows": sum(item.stage1 is not None for item in rows),
        "stage2_rows": sum(item.stage2 is not None for item in rows),
        "kept_by_stage": {stage.stage: stage.kept for stage in chain},
        "seconds_by_stage": {stage.stage: stage.seconds for stage in chain},
    }


def _by_stage(short: Made, long: Made, pictures: int) -> dict[str, float]:
    """Of shards, from read to written; ``elsewhere`` is reading them, and deciding on the whole."""
    before = {stage.stage: stage.seconds for stage in short.corpus.chain()}
    took = {stage.stage: stage.seconds - before[stage.stage] for stage in long.corpus.chain()}
    took["elsewhere"] = long.seconds - short.seconds - sum(took.values())
    return {name: round(1000 * seconds / pictures, 2) for name, seconds in took.items()}


def _processor(short: Made, long: Made, pictures: int) -> dict[str, float]:
    """Seconds of processors, which other work on the machine changes less than those of the clock.

    A picture's are those of the steady state: what starting takes is in both runs, and stands by itself.
    """
    a_picture = (long.cpu - short.cpu) / pictures
    of = {name: (long.cpu_of[name] - short.cpu_of[name]) / pictures for name in ("read", "item")}
    return {
        "a_picture": round(a_picture, 4),
        "of_the_engine": round(of["read"], 4),
        "of_the_engine_with_opening": round(of["item"], 4),
        "overhead_over_the_engine": round(a_picture / of["read"] - 1, 4),
        "overhead_over_the_engine_with_opening": round(a_picture / of["item"] - 1, 4),
        "to_start": round(short.cpu - a_picture * pictures_of(short), 2),
        "of_that_to_load_the_engine": round(short.cpu_of["load"], 2),
    }


def pictures_of(run: Made) -> int:
    return run.corpus.chain()[0].rows
