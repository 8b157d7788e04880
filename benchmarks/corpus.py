"""How well and how fast a corpus is made: python benchmarks/corpus.py [PART ...] [--pictures N]

Parts, all of them by default::

    ocr         character accuracy of every engine that is installed, on rendered text whose truth is known
                (flat, like photographs, rotated; letters of 9, 12 and 18 pixels), and seconds a picture
    agreement   how far engines agree where the first one is right, and where it is wrong
    duplicates  precision and recall of the near-duplicate stage on edited copies and on cards of one template
    end         the whole pipeline on rendered scenes: pictures an hour on one core, rows, and what it costs
                beyond the time that the engine itself takes
    teacher     rows of the template teacher: is what they quote in the reading, do they repeat, how long

Engines run on one thread, one process. Each part writes its results into benchmarks/results/corpus.json and
leaves those of the other parts. Seconds are only worth their name on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from llavar.corpus.agreement import AgreementStage
from llavar.corpus.dedup import NearSettings, NearStage
from llavar.corpus.engines import Engine, EngineChoice, factory, known
from llavar.corpus.engines.rapidocr import RapidOcr
from llavar.corpus.item import Item, Origin, Taught
from llavar.corpus.opening import fingerprint
from llavar.corpus.recipe import read_recipe, source_of, stages_of
from llavar.corpus.rows import OcrStage
from llavar.corpus.shards import Corpus, RunSettings
from llavar.corpus.teach import turns_of
from llavar.errors import LlavarError
from llavar.evals.metrics import edit_distance
from llavar.records import Line, Reading, Reject
from llavar.render import fonts, words
from llavar.render.layouts import Style, page, scene
from llavar.render.paint import paint

ROOT = Path(__file__).resolve().parent.parent
SIDE, SIZES, TURN = 384, (9, 12, 18), 7.0
CONDITIONS = ("flat", "photo", "rotated")
TIMES = "LLAVAR_BENCHMARK_TIMES"


# ------------------------------------------------------------------------------------------ OCR


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A picture of lines with their truth; ``middles`` are their heights before it was turned."""

    image: Image.Image
    texts: tuple[str, ...]
    middles: tuple[float, ...]
    degrees: float


def sheet(condition: str, size: int, seed: int) -> Sheet:
    """Lines of one font with ``size`` pixels to the em, on a 384 pixel square."""
    rng = random.Random(f"{condition}:{size}:{seed}")
    dark = rng.random() < 0.3
    paper, ink = ((28, 30, 40), (240, 236, 224)) if dark else ((243, 240, 232), (24, 26, 34))
    image = _scenery(rng, paper) if condition == "photo" else Image.new("RGB", (SIDE, SIDE), paper)
    face, draw = fonts.load(rng.choice(fonts.TRAIN), size), ImageDraw.Draw(image)
    margin = 56 if condition == "rotated" else 16
    texts: list[str] = []
    middles: list[float] = []
    top = margin
    while top + 2 * size < SIDE - margin:
        text = words.phrase(rng, held_out=False, length=rng.randint(12, 28))
        while draw.textlength(text, font=face) > SIDE - 2 * margin:
            text = text.rpartition(" ")[0] or text[:-1]
        draw.text((margin, top), text, font=face, fill=ink)
        texts.append(text)
        middles.append(top + 0.6 * size)
        top += round(size * rng.uniform(1.9, 2.6))
    degrees = rng.choice((-TURN, TURN)) if condition == "rotated" else 0.0
    if degrees:
        image = image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=paper)
    if condition == "photo":
        image = _photographed(image, rng)
    return Sheet(image=image, texts=tuple(texts), middles=tuple(middles), degrees=degrees)


def _scenery(rng: random.Random, paper: tuple[int, int, int]) -> Image.Image:
    """Soft shapes in colours near the paper's, as things out of focus behind a caption."""
    image = Image.new("RGB", (SIDE, SIDE), paper)
    draw = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, radius = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(15, 90)
        colour = tuple(max(0, min(255, round(tone + rng.uniform(-60, 60)))) for tone in paper)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(8))


def _photographed(image: Image.Image, rng: random.Random) -> Image.Image:
    """Slightly out of focus, with grain, as a JPEG of quality 70."""
    import io

    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.4)), dtype=np.float32)
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, 7, soft.shape)
    held = io.BytesIO()
    Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8)).save(held, "JPEG", quality=70)
    with Image.open(held) as found:
        return found.convert("RGB")


def read_text(found: Sequence[Line], truth: Sheet) -> str:
    """What was read, each piece in the line of the truth where it stands: engines alone are measured."""
    turn = np.deg2rad(truth.degrees)
    places: list[tuple[int, float, str]] = []
    for line in found:
        x = (line.box.left + line.box.right) / 2 - SIDE / 2
        y = (line.box.top + line.box.bottom) / 2 - SIDE / 2
        upright = x * np.sin(turn) + y * np.cos(turn) + SIDE / 2
        row = min(range(len(truth.middles)), key=lambda row: abs(truth.middles[row] - upright))
        places.append((row, x, line.text))
    return " ".join(" ".join(text.split()) for _, _, text in sorted(places))


def engines() -> Iterator[Engine]:
    """All that can be loaded without a folder of models; the others are named with the reason."""
    for name in known():
        try:
            yield factory(EngineChoice(name=name))()
        except LlavarError as error:
            print(f"left out: {error}")


def ocr(count: int) -> dict[str, Any]:
    sheets = {
        (condition, size): [sheet(condition, size, seed) for seed in range(count)]
        for condition in CONDITIONS
        for size in SIZES
    }
    found: dict[str, Any] = {}
    for engine in engines():
        engine.read(sheets["flat", 18][0].image)  # what is only loaded at the first picture
        accuracy: dict[str, dict[str, float]] = {}
        seconds, total = 0.0, 0
        for (condition, size), group in sheets.items():
            edits = letters = 0
            for one in group:
                started = time.perf_counter()
                lines = engine.read(one.image)
                seconds, total = seconds + time.perf_counter() - started, total + 1
                wanted = " ".join(one.texts)
                edits += min(len(wanted), edit_distance(read_text(lines, one), wanted))
                letters += len(wanted)
            accuracy.setdefault(condition, {})[f"{size} px"] = round(1 - edits / letters, 4)
        found[engine.name] = {"accuracy": accuracy, "seconds_a_picture": round(seconds / total, 3)}
        print(engine.name, json.dumps(found[engine.name]))
    return {"pictures_each": count, "side": SIDE, "rotated_degrees": TURN, "engines": found}


def agreement(count: int) -> dict[str, Any]:
    """Of the first two engines: mean agreement where the first is right to 99 %, and where it is not."""
    pair = list(engines())[:2]
    if len(pair) < 2:
        return {"left_out": "fewer than two engines are installed"}
    pair.sort(key=lambda engine: not engine.name.startswith("rapidocr"))
    stage, values = AgreementStage(), {True: list[float](), False: list[float]()}
    for condition in CONDITIONS[:2]:  # rows of turned pictures are in no engine's order
        for size in SIZES:
            for seed in range(count):
                one = sheet(condition, size, seed)
                readings = [
                    Reading(image="", size=one.image.size, lines=engine.read(one.image), engine=engine.name)
                    for engine in pair
                ]
                wanted = " ".join(one.texts)
                edits = edit_distance(read_text(readings[0].lines, one), wanted)
                values[edits <= 0.01 * len(wanted)].append(stage.agreement(*readings))
    return {
        "engines": [engine.name for engine in pair],
        **{
            name: {"pictures": len(values[key]), "mean": round(float(np.mean(values[key])), 4)}
            for name, key in (("first_is_right", True), ("first_is_wrong", False))
            if values[key]
        },
    }


# ------------------------------------------------------------------------------------------ duplicates


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((int(image.width * 0.6), int(image.height * 0.6))),
    "jpeg": lambda image: _recoded(image, 35),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "paler": lambda image: ImageEnhance.Color(image).enhance(0.3),
    "cropped": lambda image: image.crop(
        (image.width // 50, image.height // 50, image.width * 49 // 50, image.height * 49 // 50)
    ),
    "bordered": lambda image: _bordered(image, image.width // 40),
    "stamped": lambda image: _stamped(image),
}


def _recoded(image: Image.Image, quality: int) -> Image.Image:
    import io

    held = io.BytesIO()
    image.save(held, "JPEG", quality=quality)
    with Image.open(held) as found:
        return found.convert("RGB")


def _bordered(image: Image.Image, width: int) -> Image.Image:
    framed = Image.new("RGB", (image.width + 2 * width, image.height + 2 * width), "black")
    framed.paste(image, (width, width))
    return framed


def _stamped(image: Image.Image) -> Image.Image:
    copy = image.copy()
    ImageDraw.Draw(copy).text((copy.width - 70, copy.height - 18), "stock.example", fill="gray", font_size=10)
    return copy


def card(template: int, number: int) -> Image.Image:
    """A quote card: its template decides on everything but the words."""
    rng = random.Random(f"template:{template}")
    paper = tuple(rng.randint(160, 250) for _ in range(3))
    ink, face = tuple(rng.randint(0, 90) for _ in range(3)), fonts.load(rng.choice(fonts.TRAIN), 26)
    image = Image.new("RGB", (SIDE, SIDE), paper)
    draw = ImageDraw.Draw(image)
    draw.rectangle((14, 14, SIDE - 14, SIDE - 14), outline=ink, width=5)
    draw.ellipse((SIDE // 2 - 30, 36, SIDE // 2 + 30, 96), fill=ink)
    say = random.Random(f"card:{template}:{number}")
    for row in range(4):
        text = words.phrase(say, held_out=False, length=16)
        draw.text((SIDE // 2, 140 + 50 * row), text, font=face, fill=ink, anchor="mm")
    return image


def duplicates(count: int) -> dict[str, Any]:
    """Every scene is followed by its edited copies; cards of one template are all different pictures."""
    engine = RapidOcr()
    originals = [paint(scene(f"copy-{seed}", Style(min_lines=2)), SIDE) for seed in range(count)]
    items = [_item(f"{seed}", image, engine) for seed, image in enumerate(originals)]
    for seed, image in enumerate(originals):
        items += [_item(f"{seed}/{name}", edit(image), engine) for name, edit in EDITS.items()]
    items += [
        _item(f"card{template}-{number}", card(template, number), engine)
        for template in range(max(2, count // 4))
        for number in range(4)
    ]
    found: dict[str, Any] = {"originals": count, "copies": count * len(EDITS), "cards": 0}
    found["cards"] = sum(item.id.startswith("card") for item in items)
    for name, settings in (
        ("with_text", NearSettings()),
        ("fingerprint_alone", replace(NearSettings(), min_text=0.0)),
    ):
        stage = NearStage(settings=settings)
        ended = [one for one in stage.apply(stage.decide([items]), items) if isinstance(one, Reject)]
        right = [
            one for one in ended if one.id.partition("/")[0] == one.detail.split(",")[0].partition("/")[0]
        ]
        by_edit = Counter(one.id.partition("/")[2] for one in right)
        found[name] = {
            "precision": round(len(right) / max(1, len(ended)), 4),
            "recall": round(len(right) / (count * len(EDITS)), 4),
            "recall_by_edit": {edit: round(by_edit[edit] / count, 3) for edit in EDITS},
            "cards_lost": sum(one.id.startswith("card") for one in ended),
        }
        print(name, json.dumps(found[name]))
    return found


def _origin(name: str) -> str:
    return name.partition("/")[0]


def _item(name: str, image: Image.Image, engine: RapidOcr) -> Item:
    reading = Reading(image=name, size=image.size, lines=engine.read(image), engine=engine.name)
    return Item(id=name, origin=Origin(source="b"), fingerprint=fingerprint(image), readings=(reading,))


# ------------------------------------------------------------------------------------------ end to end


class TimedRapidOcr(RapidOcr):
    """RapidOCR that notes how long it took, itself alone."""

    name: ClassVar[str] = RapidOcr.name

    def __init__(self) -> None:
        started = time.perf_counter()
        super().__init__()
        self._note("load", started)

    def read(self, image: Image.Image) -> tuple[Line, ...]:
        started = time.perf_counter()
        found = super().read(image)
        self._note("read", started)
        return found

    def _note(self, what: str, started: float) -> None:
        with Path(os.environ[TIMES]).open("a") as file:
            file.write(f"{what} {time.perf_counter() - started}\n")


RECIPE = "source: {folder: pictures}\nworkers: 1\nshard_rows: 100\n"


def made(folder: Path, count: int) -> tuple[Corpus, dict[str, float]]:
    """A corpus of ``count`` rendered pictures, and seconds: of all, and of the engine."""
    (folder / "pictures").mkdir(parents=True)
    for number in range(count):
        draw = page if number % 4 == 3 else scene
        paint(draw(f"end-{number}", Style(min_lines=2)), SIDE).save(folder / "pictures" / f"{number:05d}.png")
    (folder / "recipe.yaml").write_text(RECIPE)
    os.environ[TIMES] = str(folder / "times")
    recipe, out = read_recipe(folder / "recipe.yaml"), folder / "corpus"
    stages = [
        replace(stage, engines=(TimedRapidOcr,)) if isinstance(stage, OcrStage) else stage
        for stage in stages_of(recipe, out)
    ]
    corpus = Corpus(out)
    started = time.perf_counter()
    settings = RunSettings(shard_rows=recipe.shard_rows, workers=1)
    corpus.run(source_of(recipe, folder), stages, settings=settings)
    seconds = {"all": time.perf_counter() - started, "read": 0.0, "load": 0.0}
    for line in (folder / "times").read_text().splitlines():
        what, took = line.split()
        seconds[what] += float(took)
    return corpus, seconds


def end(count: int) -> dict[str, Any]:
    """Two runs, one twice as long: what a picture costs does not depend on how long starting takes."""
    with tempfile.TemporaryDirectory(prefix="llavar-corpus-") as held:
        _, short = made(Path(held) / "short", count)
        corpus, long = made(Path(held) / "long", 2 * count)
        chain = corpus.chain()
        readings = [item.readings[0] for items in corpus.items("ocr") for item in items]
        rows = [item for items in corpus.items(chain[-1].stage) for item in items]
    engine, whole = long["read"] - short["read"], long["all"] - short["all"]
    return {
        "pictures": 2 * count,
        "seconds": round(long["all"], 2),
        "seconds_of_the_engine": round(long["read"], 2),
        "seconds_to_load_it": round(long["load"], 2),
        "seconds_a_picture": round(whole / count, 4),
        "overhead_over_the_engine": round(whole / engine - 1, 4),
        "overhead_with_start": round(long["all"] / long["read"] - 1, 4),
        "pictures_an_hour_a_core": round(3600 * count / whole),
        "lines_a_picture": round(sum(len(one.lines) for one in readings) / len(readings), 1),
        "stage1_rows": sum(item.stage1 is not None for item in rows),
        "stage2_rows": sum(item.stage2 is not None for item in rows),
        "kept_by_stage": {stage.stage: stage.kept for stage in chain},
        "seconds_by_stage": {stage.stage: stage.seconds for stage in chain},
    }


# ------------------------------------------------------------------------------------------ the teacher


_QUOTED = re.compile(r'"([^"]+)"')


def teacher(count: int, tokenizer: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="llavar-corpus-") as held:
        corpus, _ = made(Path(held) / "c", count)
        last = corpus.chain()[-1].stage
        rows = [item for items in corpus.items(last) for item in items]
    taught = [item.stage2 for item in rows if item.stage2 is not None]
    checks = Counter(ok for one in taught for ok in _supported(one))
    texts = [tuple(turn.text for turn in one.conversation.turns) for one in taught]
    questions = [tuple(text.replace("<image>", "").strip() for text in one[::2]) for one in texts]
    first = [item.stage1.turns for item in rows if item.stage1 is not None]
    return {
        "rows": {"stage1": len(first), "stage2": len(taught)},
        "turns_a_row": round(sum(len(one) / 2 for one in texts) / len(texts), 2),
        "quotes_checked": checks.total(),
        "quotes_found": round(checks[True] / max(1, checks.total()), 4),
        "questions_asked_twice_in_a_row": sum(len(set(one)) < len(one) for one in questions),
        "equal_conversations": len(texts) - len(set(texts)),
        "lengths": {
            "stage1": _lengths([(one[0].text, one[1].text) for one in first], tokenizer),
            "stage2": _lengths(
                [pair for one in texts for pair in zip(one[::2], one[1::2], strict=True)], tokenizer
            ),
            "paper_llama_tokens": {"stage1": [17.2, 48.8], "stage2": [15.1, 40.5]},
        },
    }


def _supported(taught: Taught) -> Iterator[bool]:
    """Whether each answer rests on the lines that are said to support it."""
    everything = "\n".join(taught.support)
    for asked, answer in turns_of(taught.conversation):
        quoted = _QUOTED.search(asked.text)
        if quoted is not None and answer.text in ("yes", "no"):
            yield (quoted[1].casefold() in everything.casefold()) == (answer.text == "yes")
        elif answer.text.isdigit() and answer.text not in everything:
            yield int(answer.text) == len(taught.support)
        else:
            yield all(line in everything for line in answer.text.split("\n"))


def _lengths(pairs: Sequence[tuple[str, str]], tokenizer: Path | None) -> dict[str, list[float]]:
    """Means of instruction and response: characters, words, and tokens where there is a tokenizer."""
    measures: dict[str, Callable[[str], int]] = {"characters": len, "words": lambda text: len(text.split())}
    if tokenizer is not None:
        from tokenizers import Tokenizer

        found = Tokenizer.from_file(str(tokenizer))
        measures["tokens"] = lambda text: len(found.encode(text, add_special_tokens=False).ids)
    clean = [(one.replace("<image>", "").strip(), other) for one, other in pairs]
    return {
        name: [round(sum(measure(pair[side]) for pair in clean) / max(1, len(clean)), 1) for side in (0, 1)]
        for name, measure in measures.items()
    }


# ------------------------------------------------------------------------------------------ all of it


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = ("ocr", "agreement", "duplicates", "end", "teacher")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(names))
    parser.add_argument("--pictures", type=int, default=20, help="of each kind; 20 by default")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json, for lengths in tokens")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/corpus.json")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - {*names}:
        parser.error(f"there is no part {sorted(unknown)[0]!r}; parts are {', '.join(names)}")
    count = arguments.pictures
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "ocr": lambda: ocr(count),
        "agreement": lambda: agreement(count),
        "duplicates": lambda: duplicates(count),
        "end": lambda: end(5 * count),
        "teacher": lambda: teacher(5 * count, arguments.tokenizer),
    }
    held: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    for name in arguments.parts or names:
        started = time.perf_counter()
        found = makers[name]()
        held[name] = {**found, "took": round(time.perf_counter() - started, 1), "machine": machine()}
        arguments.out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({name: held[name]}, indent=1))


def machine() -> str:
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}{load}"


if __name__ == "__main__":
    main()
