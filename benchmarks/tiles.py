"""Does a model that sees tiles read text half as high? python benchmarks/tiles.py train ARM | exam

Starts from the shipped nano and trains projector and decoder on, as in stage 2, on scenes drawn afresh::

    tiles   text half as high as nano's own, seen as an overview and 2 x 2 tiles (overlapping in round 3)
    whole   the same pictures, seen once: the control
    large   text as high as nano's own, seen once: what so much more training does by itself

``train`` goes on where it was stopped and leaves a model of every round in RUN/ARM-ROUND/model. ``exam`` asks
the shipped nano and what is finished of round 2, the last without overlap, and of the last round to read the
same held-out texts, large (h) and half as high (h/2), and writes benchmarks/results/tiles.json: character
error rates with intervals from resampling pictures, for all of them, and apart for those with a line across
the middle, where tiles meet.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llavar.corpus.wordings import QuestionKind, question
from llavar.render.layouts import Style, scene
from llavar.render.paint import paint
from llavar.study.nano.questions import HELD_OUT
from llavar.study.nano.small import anywhere

ROOT = Path(__file__).resolve().parent.parent
BATCH = 16
ARMS = ("tiles", "whole", "large")
HEIGHTS = {"h": "large", "h/2": "small"}


def attention_in_blocks(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float = 0.0, **more: Any
) -> tuple[Any, None]:
    """Causal attention whose queries come in four runs, each with the keys up to its end alone.

    On a CPU twice as fast as torch's own at the 800 tokens of a row here. Every sequence holds one row.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None or not module.is_causal:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    batch, heads, length, _ = query.shape
    key, value = (
        each.repeat_interleave(heads // each.shape[1], dim=1).flatten(0, 1) for each in (key, value)
    )
    query, size, found = query.flatten(0, 1), -(-length // 4), []
    for start in range(0, length, size):
        end = min(start + size, length)
        after = torch.zeros(end - start, end, dtype=query.dtype)
        after[:, start:] = torch.full((end - start, end - start), float("-inf")).triu(1)
        scores = torch.baddbmm(
            after.expand(batch * heads, -1, -1),
            query[:, start:end],
            key[:, :end].transpose(1, 2),
            alpha=scaling,
        )
        found.append(torch.softmax(scores, -1) @ value[:, :end])
    return torch.cat(found, dim=1).unflatten(0, (batch, heads)).transpose(1, 2).contiguous(), None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One training: each arm goes through all of them, the next from what the last one left.

    ``overlap`` is what neighbouring tiles share, in percent of a tile's side.
    """

    steps: int
    seed: str
    projector: float
    decoder: float
    overlap: int = 0


ROUNDS = (
    Round(steps=1200, seed="small", projector=1e-3, decoder=6e-4),
    Round(steps=300, seed="more", projector=5e-4, decoder=4e-4),
    Round(steps=1150, seed="overlap", projector=7.5e-4, decoder=6e-4, overlap=17),
)


def train(arm: str, run: Path) -> None:
    """One arm, to the end."""
    from llavar.study.nano import weights

    start = weights.folder("nano")
    for number, settings in enumerate(ROUNDS, start=1):
        out = run / f"{arm}-{number}"
        if not (out / "model" / weights.LAST_FILE).is_file():
            train_round(arm, settings, start, out)
        start = out / "model"


def train_round(arm: str, settings: Round, start: Path, out: Path) -> None:
    """Train what is in ``start`` on, in the folder ``out``."""
    import torch
    from transformers import AttentionInterface

    from llavar.images import WHOLE, Tiles
    from llavar.models import _hf as hf
    from llavar.models.tokenizer import load_tokenizer
    from llavar.study.nano.small import SmallData, SmallObjective
    from llavar.train.config import LoopConfig, PartConfig, Precision
    from llavar.train.llava import DECODER, PROJECTOR
    from llavar.train.loop import fit

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    tokenizer = load_tokenizer(start)
    tiles = Tiles(rows=2, columns=2, overlap=settings.overlap) if arm == "tiles" else WHOLE
    AttentionInterface.register("in_blocks", attention_in_blocks)
    model: Any = hf.load_llava(start, attention="in_blocks" if arm == "tiles" else "eager")
    hf.disable_cache(model)
    data = SmallData(tiles=tiles, whole=1.0 if arm == "large" else 0.1, batch=BATCH, seed=settings.seed)
    loop = LoopConfig(
        steps=settings.steps,
        parts={PROJECTOR: PartConfig(lr=settings.projector), DECODER: PartConfig(lr=settings.decoder)},
        precision=Precision.BF16,
        betas=(0.9, 0.98),
        log_every=5,
        save_every=40,
        tags={"arm": arm},
    )
    begun = time.monotonic()
    done = fit(
        SmallObjective(model, tokenizer, data),
        loop,
        out,
        on_tick=lambda tick: print(
            f"{out.name} {tick.step} {tick.loss:.4f} {time.monotonic() - begun:.0f}s", flush=True
        ),
    )
    hf.save_llava(model, out / "model", dtype=torch.float32, tiles=tiles)
    tokenizer.save(out / "model")
    print(f"{out.name}: {done.steps} steps", flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the exam: scenes of a style, with text that no arm was trained on."""

    about: str
    style: Style
    pictures: int


PARTS = {
    "lines": Part(
        about="one line of unseen words or a number, in fonts and layouts of training: what nano reads best",
        style=Style(held_out_words=True, max_lines=1, wild=0.0),
        pictures=200,
    ),
    "exam": Part(
        about="unseen words, fonts and layouts, up to three lines: nano's own exam",
        style=HELD_OUT,
        pictures=200,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What is written in a picture, and whether a line of the small one crosses where 2 x 2 tiles meet."""

    text: str
    crossed: bool


def draw(part: str, folder: Path) -> dict[str, Shown]:
    """Pictures of a part, large and small, in ``folder``; what they show by name.

    Text is 48 pixels high or more in both: the large scenes are drawn at 384 pixels, the small at 768.
    """
    shown: dict[str, Shown] = {}
    for number in range(PARTS[part].pictures):
        rng = random.Random(f"{part}:{number}")
        drawn = scene(f"tiles:{part}:{number}", PARTS[part].style)
        if not drawn.text.strip():
            continue
        name = f"{part}-{number:04d}.png"
        small = anywhere(drawn, 0.5, rng)
        boxes = [line.box for line in small.lines]
        shown[name] = Shown(
            text=drawn.text,
            crossed=any(box.left < 0.5 < box.right or box.top < 0.5 < box.bottom for box in boxes),
        )
        for height, scaled, size in (("h", drawn, 384), ("h/2", small, 768)):
            path = folder / HEIGHTS[height] / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                paint(scaled, size, noise_seed=number).save(path)
    return shown


def read(model: Path, folder: Path, shown: dict[str, Shown]) -> list[tuple[int, int]]:
    """Edits and characters of every picture, asked to be transcribed as in nano's own exam."""
    from llavar.evals.metrics.text import transcription_counts
    from llavar.generate.base import Request
    from llavar.generate.local import LocalGenerator

    def asked(name: str) -> Request:
        wording = question(QuestionKind.TRANSCRIBE, random.Random(name), held_out=False)
        return Request(image=folder / name, question=wording, max_new_tokens=64)

    generator, names, answers = LocalGenerator.load(model), list(shown), []
    for first in range(0, len(names), 10):
        answers += generator.answer([asked(name) for name in names[first : first + 10]])
    return [
        transcription_counts(said, (shown[name].text,)) for name, said in zip(names, answers, strict=True)
    ]


def exam(run: Path, out: Path) -> None:
    """Every model on every part and height, and how the tiles compare with what they are held against."""
    from llavar.evals.stats import bootstrap, paired
    from llavar.study.nano import weights

    models = {"nano": weights.folder("nano")}
    folders = (run / f"{arm}-{number}" for arm in ARMS for number in (2, len(ROUNDS)))
    models |= {
        folder.name: folder / "model"
        for folder in folders
        if (folder / "model" / weights.LAST_FILE).is_file()
    }
    best = f"tiles-{len(ROUNDS)} at h/2"
    document: dict[str, Any] = {"question": __doc__.splitlines()[0], "arms": _arms(run), "parts": {}}
    for part, about in PARTS.items():
        shown = draw(part, run / "exam")
        crossed = [one.crossed for one in shown.values()]
        counts: dict[str, list[tuple[int, int]]] = {}
        for name, folder in models.items():
            for height, place in HEIGHTS.items():
                counts[f"{name} at {height}"] = read(folder, run / "exam" / place, shown)
        wanted = [one for one in counts if one != best and best in counts]
        held = {
            name: {
                **asdict(bootstrap(values)),
                "crossed": asdict(bootstrap([v for v, over in zip(values, crossed, strict=True) if over])),
                "apart": asdict(bootstrap([v for v, over in zip(values, crossed, strict=True) if not over])),
            }
            for name, values in counts.items()
        }
        document["parts"][part] = {
            "about": about.about,
            "pictures": len(shown),
            "crossed": sum(crossed),
            "character_error_rate": held,
            "paired": {f"{best} minus {one}": asdict(paired(counts[one], counts[best])) for one in wanted},
        }
        for name, score in held.items():
            print(
                f"{part:6} {name:14} CER {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}), "
                f"across the middle {score['crossed']['value']:.3f}, apart {score['apart']['value']:.3f}"
            )
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _arms(run: Path) -> dict[str, Any]:
    """Steps, rows and last losses (the mean of ten entries) of every round that was trained."""
    found: dict[str, Any] = {}
    for arm in ARMS:
        for number, settings in enumerate(ROUNDS, start=1):
            log = run / f"{arm}-{number}" / "metrics.jsonl"
            if log.is_file():
                lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
                loss = sum(line["loss"] for line in lines[-10:]) / len(lines[-10:])
                steps = lines[-1]["step"]
                found[log.parent.name] = {
                    **asdict(settings),
                    "steps": steps,
                    "rows": steps * BATCH,
                    "loss": loss,
                }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("train", "exam"))
    parser.add_argument("arm", nargs="?", choices=ARMS, default="tiles")
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "tiles")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "tiles.json")
    given = parser.parse_args()
    if given.what == "train":
        train(given.arm, given.run)
    else:
        exam(given.run, given.out)


if __name__ == "__main__":
    main()
