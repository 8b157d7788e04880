"""How well nano reads, on pictures that nothing in its training resembles: python benchmarks/nano.py

Pictures are drawn by nano_scenes.py and asked about by nano_exam.py; both say how. Measured are

* the exam: transcriptions, questions with short answers, questions without an answer, and whether one picture
  gets different answers to different questions;
* the same questions in words that no training row has and before the picture in place of after it, and
  transcriptions of pictures that differ in one respect: turned, noisy, compressed, lower text, other fonts,
  marks, strings without meaning;
* OCR engines on the same files, transcription alone, and on what is left of them at nano's 96 pixels;
* seconds of ``llavar ask`` from start to exit, and of a further question, both on one core;
* pictures a second of rendering and of training on one core; sizes.

Intervals (95 %) come from resampling pictures. A goal is met or missed by the figure itself. Do not run
anything else meanwhile. An engine that is not installed is left out and named. Results go to
benchmarks/results/nano.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
import nano_exam as exam  # noqa: E402 - neighbours, wherever this is started from
import nano_scenes as scenes  # noqa: E402
from nano_exam import About, Item  # noqa: E402
from nano_scenes import Drawn, Kind  # noqa: E402
from PIL import Image  # noqa: E402

SEEN = 96
"""Side of what nano sees, in pixels."""

ENGINES = ("rapidocr", "tesseract")
_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Pictures that differ from those of the exam in one respect: in how they are drawn, or afterwards."""

    kind: Kind = scenes.PLAIN
    change: Callable[[Drawn], Image.Image] | None = None


VARIANTS = {
    "turned by 2 degrees": Variant(change=scenes.turned(2)),
    "turned by 5 degrees": Variant(change=scenes.turned(5)),
    "noise of 25 levels, fine": Variant(change=scenes.noisy(25, 1)),
    "noise of 12 levels, grains of 5 pixels": Variant(change=scenes.noisy(12, 5)),
    "JPEG at quality 40": Variant(change=scenes.jpeg(40)),
    "text of 1/10 to 1/8": Variant(kind=Kind(low=1 / 10, high=1 / 8)),
    "text of 1/14 to 1/10": Variant(kind=Kind(low=1 / 14, high=1 / 10)),
    "DejaVu and Liberation": Variant(kind=Kind(faces=scenes.SYSTEM_FACES)),
    "with marks": Variant(kind=Kind(text=scenes.marked)),
    "without meaning": Variant(kind=Kind(text=scenes.meaningless)),
}


# --- the model -------------------------------------------------------------------------------------------


class Asked:
    """One model, and the pictures of a folder."""

    def __init__(self, model: str, folder: Path) -> None:
        from llavar.generate.local import LocalGenerator
        from llavar.study.reader import find

        self.generator, self.folder = LocalGenerator.load(find(model), name=model), folder

    def answers(self, given: Sequence[Item], *, image_first: bool = True) -> list[str]:
        """In the order of the questions; questions of one kind are asked together, as they end together."""
        from llavar.generate.base import Request

        order = sorted(range(len(given)), key=lambda place: given[place].about)
        said = [""] * len(given)
        for start in range(0, len(order), 32):
            part = order[start : start + 32]
            requests = [
                Request(
                    image=self.folder / f"{given[place].picture}.png",
                    question=given[place].question,
                    max_new_tokens=64,
                    image_first=image_first,
                )
                for place in part
            ]
            for place, text in zip(part, self.generator.answer(requests), strict=True):
                said[place] = text
        return said


def main_exam(asked: Asked, pictures: Sequence[Drawn], blanks: Sequence[Drawn]) -> dict[str, Any]:
    """Everything that is asked about the pictures of the exam."""
    given = [item for drawn in (*pictures, *blanks) for item in exam.items(drawn)]
    said = asked.answers(given)
    again = exam.reworded(given)
    said_again = asked.answers(again)
    said_after = asked.answers(given, image_first=False)
    unanswerable = [about for about in About if about.unanswerable]
    return {
        "pictures": len(pictures),
        "pictures_without_text": len(blanks),
        "questions": len(given),
        "transcription": exam.transcriptions(_read(given, said)),
        "by_font": _by(pictures, given, said, lambda drawn: drawn.face),
        "by_lines": _by(pictures, given, said, lambda drawn: f"{len(drawn.lines)}"),
        "by_arrangement": _by(pictures, given, said, lambda drawn: drawn.arrangement),
        "short": exam.answers(given, said, exam.SHORT),
        "unanswerable": exam.answers(given, said, unanswerable),
        "declined_wrongly": exam.declined(given, said),
        "instructions": exam.instructions(given, said),
        "reworded": {
            "transcription": exam.transcriptions(_read(again, said_again)),
            "short": exam.answers(again, said_again, exam.SHORT),
        },
        "picture_after": {
            "transcription": exam.transcriptions(_read(given, said_after)),
            "short": exam.answers(given, said_after, exam.SHORT),
        },
        "wrong": _wrong(given, said),
    }


def _read(given: Sequence[Item], said: Sequence[str]) -> list[tuple[str, str]]:
    """(truth, said) of every transcription."""
    return [(i.answer, text) for i, text in zip(given, said, strict=True) if i.about is About.TEXT]


def _by(
    pictures: Sequence[Drawn], given: Sequence[Item], said: Sequence[str], of: Callable[[Drawn], str]
) -> dict[str, Any]:
    """Transcriptions of pictures that are alike in something."""
    kinds = {drawn.name: of(drawn) for drawn in pictures}
    found: dict[str, list[tuple[str, str]]] = {}
    for item, text in zip(given, said, strict=True):
        if item.about is About.TEXT:
            found.setdefault(kinds[item.picture], []).append((item.answer, text))
    return {kind: exam.transcriptions(pairs) for kind, pairs in sorted(found.items())}


def _wrong(given: Sequence[Item], said: Sequence[str]) -> list[dict[str, str]]:
    """The first wrong answers of each kind, for people to look at."""
    found: dict[About, list[dict[str, str]]] = {}
    for item, text in zip(given, said, strict=True):
        if not exam.is_right(item, text):
            row = {"picture": item.picture, "question": item.question, "answer": item.answer, "said": text}
            found.setdefault(item.about, []).append(row)
    return [row for rows in found.values() for row in rows[: _SHOWN // 2]]


def outside(asked: Asked, count: int) -> dict[str, Any]:
    """Transcriptions of pictures that the exam does not have."""
    found: dict[str, Any] = {}
    for name, variant in VARIANTS.items():
        missing = [face.name for face in variant.kind.faces if face.path and not face.path.is_file()]
        if missing:
            found[name] = {"skipped": f"{missing[0]} is not installed"}
            continue
        given: list[Item] = []
        for place in range(count):
            # What is only changed afterwards are the pictures of the exam.
            drawn = scenes.draw(f"exam:{place}" if variant.change else f"{name}:{place}", variant.kind)
            image = variant.change(drawn) if variant.change else drawn.image
            file = f"{name} {place}".replace("/", " over ")
            image.save(asked.folder / f"{file}.png")
            wording = exam.WORDINGS[About.TEXT]
            given.append(Item(picture=file, about=About.TEXT, question=wording, answer=drawn.text))
        found[name] = {"pictures": count, **exam.transcriptions(_read(given, asked.answers(given)))}
    return found


# --- OCR engines -----------------------------------------------------------------------------------------


def engine_rows(pictures: Sequence[Drawn]) -> dict[str, Any]:
    """What OCR engines read in the same pictures, as they are and brought down to nano's size."""
    from llavar.corpus.engines import EngineChoice, factory
    from llavar.errors import LlavarError

    found: dict[str, Any] = {}
    for name in ENGINES:
        try:
            engine = factory(EngineChoice(name=name))()
        except LlavarError as error:
            found[name] = {"skipped": str(error)}
            continue
        for size in (scenes.SIDE, SEEN):
            found[f"{name}, {size} pixels"] = _engine_row(engine, pictures, size)
    return found


def _engine_row(engine: Any, pictures: Sequence[Drawn], size: int) -> dict[str, Any]:
    pairs: list[tuple[str, str]] = []
    started = time.perf_counter()
    for drawn in pictures:
        image = drawn.image
        if size != image.width:
            image = image.resize((size, size), Image.Resampling.BICUBIC)
        pairs.append((drawn.text, _engine_text(engine, image)))
    seconds = (time.perf_counter() - started) / len(pictures)
    return {"engine": engine.name, "seconds": round(seconds, 4), **exam.transcriptions(pairs)}


def _engine_text(engine: Any, image: Image.Image) -> str:
    """What it read, in reading order, sure of it or not."""
    from llavar.corpus.layout import reading_order

    return "\n".join(line.text for line in reading_order(engine.read(image)))


# --- time and size ---------------------------------------------------------------------------------------


def _one_core(command: Sequence[str]) -> str:
    """The output of a process that has one core, as a machine with a single one would run it."""
    core = {min(os.sched_getaffinity(0))}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )
    return done.stdout


def latency(model: str, folder: Path, pictures: Sequence[Drawn], repeat: int) -> dict[str, Any]:
    """Seconds from start to exit of ``llavar ask``, and of a further question on another picture."""
    paths = [str(folder / f"{drawn.name}.png") for drawn in pictures]
    question = exam.WORDINGS[About.TEXT]
    cold: list[float] = []
    for place in range(repeat + 1):
        command = [sys.executable, "-m", "llavar", "ask", paths[place % len(paths)], question]
        started = time.perf_counter()
        _one_core([*command, "--model", model])
        cold.append(round(time.perf_counter() - started, 3))
    warm = json.loads(_one_core([sys.executable, __file__, "--warm", model, *paths[: 20 * repeat]]))
    return {
        "cold": {"median": statistics.median(cold[1:]), "all": cold[1:]},  # the first one reads from disk
        "warm": {
            "median": round(statistics.median(warm), 4),
            "p95": round(statistics.quantiles(warm, n=20)[-1], 4),
            "longest": max(warm),
            "n": len(warm),
        },
    }


def _warm(model: str, paths: Sequence[str]) -> list[float]:
    """Seconds of a question on each picture, in a process that has answered three before."""
    import torch

    import llavar

    torch.set_num_threads(1)
    reader = llavar.load(model)
    taken: list[float] = []
    for path in (*paths[:3], *paths):
        started = time.perf_counter()
        reader.ask(path, exam.WORDINGS[About.TEXT])
        taken.append(round(time.perf_counter() - started, 4))
    return taken[3:]


def speeds(steps: int) -> dict[str, Any]:
    """Pictures a second on one core: drawing, and each part of the training on pictures drawn for it."""
    return json.loads(_one_core([sys.executable, __file__, "--speeds", str(steps)]))


def _speeds(steps: int) -> dict[str, float]:
    import torch

    from llavar.models import _hf as hf
    from llavar.models.tokenizer import nano_tokenizer
    from llavar.recipes import nano as recipe
    from llavar.render.layouts import Style, scene
    from llavar.render.paint import paint
    from llavar.study.nano.scenes import pixels
    from llavar.study.nano.tower import DenseHead, DenseObjective, TowerData
    from llavar.study.nano.tune import SceneObjective, TuneData
    from llavar.train.config import LoopConfig, PartConfig, Precision
    from llavar.train.llava import DECODER, PROJECTOR
    from llavar.train.loop import fit

    torch.set_num_threads(1)
    tokenizer = nano_tokenizer()
    shape = recipe.nano_shape(vocab=tokenizer.vocab_size, image_token_id=tokenizer.image_patch_id)
    found = {
        f"drawn at {SEEN} pixels": _rate(
            lambda place: pixels(scene(f"speed:{place}", Style()), SEEN, place), 20 * steps
        ),
        "drawn at 384 pixels": _rate(lambda place: paint(scene(f"speed:{place}", Style()), 384), 5 * steps),
    }

    def trained(objective: Any, parts: dict[str, PartConfig]) -> float:
        config = LoopConfig(steps=steps, parts=parts, precision=Precision.BF16, log_every=1, save_every=10**6)
        with tempfile.TemporaryDirectory() as folder:
            ticks = fit(objective, config, Path(folder)).ticks
        return round(statistics.median(tick.samples_per_second for tick in ticks[1:]), 1)

    tower = hf.build_tower(shape.vision, attention="eager")
    dense = DenseObjective(tower, DenseHead(shape.vision.hidden, recipe.PATCHES), TowerData())
    found["tower trained"] = trained(dense, {"tower": PartConfig(lr=1e-3), "head": PartConfig(lr=1e-3)})
    model: Any = hf.build_llava(shape, seed=0, attention="eager")
    hf.disable_cache(model)
    rates = {PROJECTOR: PartConfig(lr=1e-3), DECODER: PartConfig(lr=1e-3)}
    found["stage 1 trained"] = trained(
        SceneObjective(model, tokenizer, TuneData()), {PROJECTOR: rates[PROJECTOR]}
    )
    found["stage 2 trained"] = trained(SceneObjective(model, tokenizer, TuneData()), rates)
    return found


def _rate(make: Callable[[int], object], count: int) -> float:
    make(0)  # fonts are opened once
    started = time.perf_counter()
    for place in range(1, count + 1):
        make(place)
    return round(count / (time.perf_counter() - started), 1)


def sizes(model: str, asked: Asked) -> dict[str, int]:
    from llavar.models import folder as folders
    from llavar.study.reader import find

    files = [path for path in folders.resolve(find(model)).iterdir() if path.is_file()]
    return {
        "parameters": asked.generator.parameters,
        "bytes": sum(path.stat().st_size for path in files),
        "largest_file": max(path.stat().st_size for path in files),
    }


# --- all of it -------------------------------------------------------------------------------------------


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    pictures = [scenes.draw(f"exam:{place}") for place in range(given.pictures)]
    blanks = [scenes.draw(f"blank:{place}", blank=True) for place in range(-(-given.pictures // 8))]
    for drawn in (*pictures, *blanks):
        drawn.image.save(folder / f"{drawn.name}.png")
    asked = Asked(given.model, folder)
    size = sizes(given.model, asked)
    found = main_exam(asked, pictures, blanks)
    around = outside(asked, given.outside)
    beside = engine_rows(pictures)
    took = latency(given.model, folder, pictures, given.repeat)
    rates = speeds(given.steps)
    figures = {
        "cer": found["transcription"]["cer"]["value"],
        "exact": found["transcription"]["exact"]["value"],
        "questions": found["short"]["all"]["value"],
        "unanswerable": found["unanswerable"]["all"]["value"],
        "cold": took["cold"]["median"],
        "warm": took["warm"]["median"],
        "size": size["bytes"],
    }
    return {
        "goals": exam.judged(figures),
        "size": size,
        "exam": found,
        "outside": around,
        "engines": beside,
        "latency": took,
        "pictures_per_second": rates,
    }


def _machine() -> dict[str, Any]:
    import torch

    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano")
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--outside", type=int, default=200, help="pictures of each kind outside the exam")
    parser.add_argument("--repeat", type=int, default=7, help="runs of llavar ask")
    parser.add_argument("--steps", type=int, default=10, help="of training, to measure its speed")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "nano.json")
    parser.add_argument("--warm", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--speeds", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.warm:
        print(json.dumps(_warm(given.warm[0], given.warm[1:])))
        return
    if given.speeds:
        print(json.dumps(_speeds(given.speeds)))
        return
    import torch

    torch.set_num_threads(1)
    machine = _machine()
    if Path(given.model).is_dir():
        given.model = str(Path(given.model).resolve())  # other processes start elsewhere
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given, Path(folder))
    command = f"python benchmarks/nano.py --pictures {given.pictures} --outside {given.outside}"
    document = {"command": command, "machine": machine, "model": Path(given.model).name, **found}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for goal in document["goals"]:
        scale = 100 if goal["unit"] == "%" else 1
        value, wanted = scale * goal["value"], scale * goal["goal"]
        print(f"{goal['verdict']:20} {goal['what']}: {value:.4g} {goal['unit']} (goal {wanted:g})")


if __name__ == "__main__":
    main()
