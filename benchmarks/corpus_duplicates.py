"""Edited copies and cards of one template, and what the stage ``near`` makes of them; a part of corpus.py."""

from __future__ import annotations

import io
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from llavar.corpus.dedup import NearSettings, NearStage
from llavar.corpus.engines.rapidocr import RapidOcr
from llavar.corpus.item import Item, Origin
from llavar.corpus.likeness import content
from llavar.corpus.opening import fingerprint
from llavar.records import Reading, Reject
from llavar.render import fonts, words
from llavar.render.layouts import Style, page, scene
from llavar.render.paint import paint

SIDE, OF_A_TEMPLATE = 384, 4
Edit = Callable[[Image.Image, random.Random], Image.Image]
"""An edited copy of a picture, and what draws its chances."""


def _resized(share: float) -> Edit:
    return lambda image, _: image.resize((round(image.width * share), round(image.height * share)))


def _recoded(quality: int) -> Edit:
    def edit(image: Image.Image, _: random.Random) -> Image.Image:
        held = io.BytesIO()
        image.save(held, "JPEG", quality=quality)
        with Image.open(held) as found:
            return found.convert("RGB")

    return edit


def _cropped(least: float, most: float) -> Edit:
    """Each edge loses its own share of the side."""

    def edit(image: Image.Image, chance: random.Random) -> Image.Image:
        left, top, right, bottom = (chance.uniform(least, most) for _ in range(4))
        wide, high = image.size
        return image.crop(
            (round(left * wide), round(top * high), round((1 - right) * wide), round((1 - bottom) * high))
        )

    return edit


def _framed(across: float, down: float, colour: str) -> Edit:
    def edit(image: Image.Image, _: random.Random) -> Image.Image:
        x, y = round(across * image.width), round(down * image.height)
        found = Image.new("RGB", (image.width + 2 * x, image.height + 2 * y), colour)
        found.paste(image, (x, y))
        return found

    return edit


def _stamped(image: Image.Image, _: random.Random) -> Image.Image:
    copy = image.copy()
    ImageDraw.Draw(copy).text((copy.width - 70, copy.height - 18), "stock.example", fill="gray", font_size=10)
    return copy


def _shifted(image: Image.Image, _: random.Random) -> Image.Image:
    """Warmer: more red, less blue."""
    channels = np.asarray(image, dtype=np.float32) * (1.15, 1.0, 0.8)
    return Image.fromarray(channels.clip(0, 255).astype(np.uint8))


EDITS: dict[str, Edit] = {
    "60 % of the size": _resized(0.6),
    "150 % of the size": _resized(1.5),
    "JPEG, quality 75": _recoded(75),
    "JPEG, quality 35": _recoded(35),
    "JPEG, quality 15": _recoded(15),
    "brighter": lambda image, _: ImageEnhance.Brightness(image).enhance(1.25),
    "colours shifted": _shifted,
    "grey": lambda image, _: image.convert("L").convert("RGB"),
    "2 % cut off each edge": _cropped(0.02, 0.02),
    "0 to 5 % cut off, unevenly": _cropped(0.0, 0.05),
    "black frame of 2.5 %": _framed(0.025, 0.025, "black"),
    "white bars of 30 %": _framed(0.3, 0.0, "white"),
    "watermark": _stamped,
}


def card(template: int, number: int) -> Image.Image:
    """A quote card: its template decides on everything but the words."""
    say = random.Random(f"card:{template}:{number}")
    return _card(template, [words.phrase(say, held_out=False, length=16) for _ in range(4)])


def numbered(template: int, number: int) -> Image.Image:
    """A certificate: what differs among those of a template is a number."""
    given = random.Random(f"numbered:{template}:{number}").randint(100, 999)
    return _certificate(f"numbered:{template}", template, f"No. {given}")


def named(template: int, number: int) -> Image.Image:
    """A certificate: what differs among those of a template is a name."""
    given = random.Random(f"named:{template}:{number}")
    return _certificate(f"named:{template}", template, words.phrase(given, held_out=False, length=9))


def _certificate(seed: str, template: int, given: str) -> Image.Image:
    say = random.Random(seed)
    lines = [words.phrase(say, held_out=False, length=16) for _ in range(3)]
    return _card(template, [*lines[:2], given, lines[2]])


def _card(template: int, lines: Sequence[str]) -> Image.Image:
    rng = random.Random(f"template:{template}")
    paper = tuple(rng.randint(160, 250) for _ in range(3))
    ink, face = tuple(rng.randint(0, 90) for _ in range(3)), fonts.load(rng.choice(fonts.TRAIN), 26)
    image = Image.new("RGB", (SIDE, SIDE), paper)
    draw = ImageDraw.Draw(image)
    draw.rectangle((14, 14, SIDE - 14, SIDE - 14), outline=ink, width=5)
    draw.ellipse((SIDE // 2 - 30, 36, SIDE // 2 + 30, 96), fill=ink)
    for row, text in enumerate(lines):
        draw.text((SIDE // 2, 140 + 50 * row), text, font=face, fill=ink, anchor="mm")
    return image


CARDS = {"card": card, "numbered": numbered, "named": named}
"""Different pictures of one template: other words, another number, another name."""


def duplicates(count: int) -> dict[str, Any]:
    """``count`` scenes and pages, each with a copy for every edit, and cards, all of them different."""
    engine = RapidOcr()
    draws = [page if number % 4 == 3 else scene for number in range(count)]
    originals = [paint(draw(f"copy-{number}", Style(min_lines=2)), SIDE) for number, draw in enumerate(draws)]
    items = [_item(f"{number}", image, engine) for number, image in enumerate(originals)]
    for number, image in enumerate(originals):
        chance = random.Random(f"edits:{number}")
        items += [_item(f"{number}/{name}", edit(image, chance), engine) for name, edit in EDITS.items()]
    items += [
        _item(f"{kind}{template}-{number}", draw(template, number), engine)
        for kind, draw in CARDS.items()
        for template in range(max(2, count // 3))
        for number in range(OF_A_TEMPLATE)
    ]
    found: dict[str, Any] = {
        "originals": count,
        "copies": count * len(EDITS),
        "cards": {kind: sum(item.id.startswith(kind) for item in items) for kind in CARDS},
        "engine": engine.name,
        "milliseconds_a_picture": _cost(originals, items),
    }
    settings = NearSettings()
    for name, one in (
        ("default", settings),
        ("without_edges", replace(settings, max_crop=0)),
        ("fingerprint_alone", replace(settings, max_crop=0, min_text=0.0)),
    ):
        found[name] = _judged(NearStage(settings=one), items, count)
    return found


def _judged(stage: NearStage, items: Sequence[Item], count: int) -> dict[str, Any]:
    ended = [one for one in stage.judge(stage.decide([list(items)]))(items) if isinstance(one, Reject)]
    right = [one for one in ended if _original(one.id) == _original(one.detail.split(",")[0])]
    by_edit = Counter(one.id.partition("/")[2] for one in right)
    return {
        "precision": round(len(right) / len(ended), 4) if ended else None,
        "recall": round(len(right) / (count * len(EDITS)), 4),
        "recall_by_edit": {edit: round(by_edit[edit] / count, 3) for edit in EDITS},
        "cards_lost": {kind: sum(one.id.startswith(kind) for one in ended) for kind in CARDS},
    }


def _original(name: str) -> str:
    return name.partition("/")[0]


def _item(name: str, image: Image.Image, engine: RapidOcr) -> Item:
    reading = Reading(image=name, size=image.size, lines=engine.read(image), engine=engine.name)
    return Item(id=name, origin=Origin(source="b"), fingerprint=fingerprint(image), readings=(reading,))


def _cost(images: Sequence[Image.Image], items: Sequence[Item]) -> dict[str, float]:
    """Of a fingerprint, of what in it is for cut edges, and of deciding; also for sides of 2,048 pixels."""
    large = [image.resize((2048, 2048)) for image in images[:4]]
    stage = NearStage()
    took = {
        "fingerprint": _seconds(lambda: [fingerprint(image) for image in images]) / len(images),
        "of_it_content": _seconds(lambda: [content(image.convert("L")) for image in images]) / len(images),
        "fingerprint_2048": _seconds(lambda: [fingerprint(image) for image in large]) / len(large),
        "of_it_content_2048": _seconds(lambda: [content(image.convert("L")) for image in large]) / len(large),
        "decide": _seconds(lambda: stage.decide([list(items)])) / len(items),
    }
    return {name: round(1000 * seconds, 2) for name, seconds in took.items()}


def _seconds(work: Callable[[], object]) -> float:
    """The least of three times, of this process's own."""
    times: list[float] = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)
