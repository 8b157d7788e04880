"""How well and how fast a corpus is made: python benchmarks/corpus.py [--only PART ...] [--scenes 2000]

Parts, all of them by default::

    ocr         character accuracy of every engine that is installed, on rendered text whose truth is known
                (flat, like photographs, rotated; letters of 9, 12 and 18 pixels), and seconds a picture
    agreement   how far engines agree where the first one is right, and where it is wrong
    fetch       pictures a second, fetched from a server on this machine and encoded anew, beside img2dataset
                (an environment of its own: --img2dataset PYTHON_OR_PATH; left out where there is none)
    duplicates  precision and recall of the near-duplicate stage on edited copies and on cards of one template
    end         the whole pipeline on rendered scenes: pictures an hour and core, rows, and what it costs
                beyond the time that the engine itself takes
    teacher     rows of the template teacher: is what they quote in the reading, do they repeat, how long

Engines run on one thread, one process. Each part writes its results into benchmarks/results/corpus.json as
soon as it has them and leaves those of the other parts; --resume leaves out parts that are there, made
with the same sizes. Seconds are only worth their name on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from llavar.corpus.agreement import AgreementStage
from llavar.corpus.engines import Engine, EngineChoice, factory, known
from llavar.corpus.item import Taught
from llavar.corpus.teach import turns_of
from llavar.errors import LlavarError
from llavar.evals.metrics import edit_distance
from llavar.records import Line, Reading
from llavar.render import fonts, words

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
from corpus_common import machine  # noqa: E402 - neighbours, wherever this is started from
from corpus_duplicates import duplicates  # noqa: E402
from corpus_end import SIDE, Scenes, end  # noqa: E402
from corpus_fetch import fetching  # noqa: E402

SIZES, TURN = (9, 12, 18), 7.0
CONDITIONS = ("flat", "photo", "rotated")


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


def engines(left_out: dict[str, str]) -> Iterator[Engine]:
    """All that can be loaded without a folder of models; why the others cannot goes into ``left_out``."""
    for name in known():
        try:
            yield factory(EngineChoice(name=name))()
        except LlavarError as error:
            left_out[name] = str(error)


def ocr(count: int) -> dict[str, Any]:
    sheets = {
        (condition, size): [sheet(condition, size, seed) for seed in range(count)]
        for condition in CONDITIONS
        for size in SIZES
    }
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for engine in engines(left_out):
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
    return {
        "pictures_each": count,
        "side": SIDE,
        "rotated_degrees": TURN,
        "engines": found,
        "left_out": left_out,
    }


def agreement(count: int) -> dict[str, Any]:
    """Of the first two engines: mean agreement where the first is right to 99 %, and where it is not."""
    pair = list(engines({}))[:2]
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


# ------------------------------------------------------------------------------------------ the teacher


_QUOTED = re.compile(r'"([^"]+)"')


def teacher(scenes: Scenes, count: int, tokenizer: Path | None) -> dict[str, Any]:
    """What the rows of a corpus of rendered scenes are worth, and how long they are beside the paper's."""
    corpus = scenes.corpus(count).corpus
    rows = [item for items in corpus.items(corpus.chain()[-1].stage) for item in items]
    taught = [item.stage2 for item in rows if item.stage2 is not None]
    checks = Counter(ok for one in taught for ok in _supported(one))
    read = Counter(ok for item in rows if item.stage2 for ok in _read(item.stage2, item.readings[0]))
    texts = [tuple(turn.text for turn in one.conversation.turns) for one in taught]
    questions = [tuple(text.replace("<image>", "").strip() for text in one[::2]) for one in texts]
    first = [item.stage1.turns for item in rows if item.stage1 is not None]
    return {
        "pictures": count,
        "rows": {"stage1": len(first), "stage2": len(taught)},
        "turns_a_row": round(sum(len(one) / 2 for one in texts) / len(texts), 2),
        "answers_checked": checks.total(),
        "answers_supported": round(checks[True] / max(1, checks.total()), 4),
        "words_of_support": read.total(),
        "words_that_were_read": round(read[True] / max(1, read.total()), 4),
        "questions_asked_twice_in_a_row": sum(len(set(one)) < len(one) for one in questions),
        "equal_conversations": len(texts) - len(set(texts)),
        "tokenizer": "" if tokenizer is None else tokenizer.name,
        "lengths": {
            "stage1": _lengths([(one[0].text, one[1].text) for one in first], tokenizer),
            "stage2": _lengths(
                [pair for one in texts for pair in zip(one[::2], one[1::2], strict=True)], tokenizer
            ),
            "paper_llama_tokens": {"stage1": [17.2, 48.8], "stage2": [15.1, 40.5]},
        },
    }


def _read(taught: Taught, reading: Reading) -> Iterator[bool]:
    """Whether each word of the lines that answers rest on is among those that the engine read."""
    words_read = {word for line in reading.lines for word in line.text.split()}
    yield from (word in words_read for line in taught.support for word in line.split())


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
    """Means of instruction and response: characters, words, and tokens where a tokenizer is named."""
    measures: dict[str, Callable[[str], int]] = {"characters": len, "words": lambda text: len(text.split())}
    if tokenizer is not None:
        from llavar.models.tokenizer import load_tokenizer

        found = load_tokenizer(tokenizer)
        start = len(found.encode(""))
        measures["tokens"] = lambda text: len(found.encode(text)) - start
    clean = [(one.replace("<image>", "").strip(), other) for one, other in pairs]
    return {
        name: [round(sum(measure(pair[side]) for pair in clean) / max(1, len(clean)), 1) for side in (0, 1)]
        for name, measure in measures.items()
    }


# ------------------------------------------------------------------------------------------ all of it


def main() -> None:
    arguments = _arguments()
    held: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="llavar-corpus-") as folder:
        for name, (asked, make) in parts(arguments, Scenes(Path(folder))).items():
            if arguments.only and name not in arguments.only:
                continue
            if arguments.resume and held.get(name, {}).get("asked") == asked:
                print(f"{name}: there already")
                continue
            on, started = machine(), time.perf_counter()
            found = make()
            took = round(time.perf_counter() - started, 1)
            held[name] = {"asked": asked, **found, "took": took, "machine": on}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
            print(json.dumps({name: held[name]}, indent=1), flush=True)


def parts(
    arguments: argparse.Namespace, scenes: Scenes
) -> dict[str, tuple[dict[str, object], Callable[[], dict[str, Any]]]]:
    """Each part with its sizes and what makes it."""
    many, count, tokenizer = arguments.pictures, arguments.scenes, arguments.tokenizer
    urls, repeat, peer = arguments.urls, arguments.repeat, arguments.img2dataset
    return {
        "ocr": ({"pictures": many}, lambda: ocr(many)),
        "agreement": ({"pictures": many}, lambda: agreement(many)),
        "fetch": (
            {"urls": urls, "repeat": repeat, "img2dataset": bool(peer)},
            lambda: fetching(urls, repeat=repeat, peer=peer),
        ),
        "duplicates": ({"originals": arguments.originals}, lambda: duplicates(arguments.originals)),
        "end": ({"scenes": count}, lambda: end(scenes, count)),
        "teacher": (
            {"scenes": count, "tokenizer": tokenizer is not None},
            lambda: teacher(scenes, count, tokenizer),
        ),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = ("ocr", "agreement", "fetch", "duplicates", "end", "teacher")
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=", ".join(names))
    parser.add_argument("--resume", action="store_true", help="leave out parts that are there already")
    parser.add_argument("--pictures", type=int, default=10, help="of each kind for the engines (10)")
    parser.add_argument("--urls", type=int, default=400, help="to fetch (400)")
    parser.add_argument("--repeat", type=int, default=3, help="times each tool fetches them (3)")
    parser.add_argument(
        "--img2dataset", default="", metavar="PYTHON_OR_PATH", help="an environment or a Python that has it"
    )
    parser.add_argument("--originals", type=int, default=12, help="that copies are made of (12)")
    parser.add_argument("--scenes", type=int, default=200, help="through the whole pipeline (200)")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="a tokenizer's, for lengths in tokens")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/corpus.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
