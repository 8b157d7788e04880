"""Key information extraction as in MultimodalOCR (its ``datasets/kie_dataset.py``): SROIE, FUNSD, POIE.

The original reads the files of SROIE and FUNSD in the order in which the file system lists them; ours are
sorted by name. Both ask all questions, so that scores agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from llavar.evals.tasks.base import Benchmark, Expected, Found, Loaded, Reader, loader
from llavar.evals.tasks.reading import Row, as_row, image_name, json_lines, listed, read_object
from llavar.records import Question, Task

_RECEIPT = (
    ("company", "what is the name of the company that issued this receipt?"),
    ("date", "when was this receipt issued?"),
    ("address", "where was this receipt issued?"),
    ("total", "what is the total amount of this receipt?"),
)
_ENTITIES = {
    "CE-PS": "Calories/Energy of per serving",
    "TF-PS": "Total fat of per serving",
    "CAR-PS": "Total carbohydrate of per serving",
    "PRO-PS": "Protein of per serving",
    "SS": "Serving size",
    "SO-PS": "Sodium of per serving",
    "TF-D": "Total fat of daily value",
    "CAR-D": "Total carbohydrate of daily value",
    "SO-D": "Sodium of daily value",
    "CE-P1": "Calories/Energy of per 100g/ml",
    "PRO-P1": "Protein of per 100g/ml",
    "CAR-P1": "Total carbohydrate of per 100g/ml",
    "TF-P1": "Total Fat of per 100g/ml",
    "PRO-D": "Protein of daily value",
    "SO-P1": "Sodium of per 100g/ml",
    "CE-D": "Calories/Energy of daily value",
    "TF-PP": "Total fat of per 100g/ml percentage",
    "CAR-PP": "Total carbohydrate of per 100g/ml percentage",
    "SO-PP": "Sodium of per 100g/ml percentage",
    "PRO-PP": "Protein of per 100g/ml percentage",
    "CE-PP": "Calories/Energy of per 100g/ml percentage",
}
"""What the keys of POIE's nutrition tables are called in the questions."""
_BRACKETED = re.compile(r"\((.*?)\)")


def _sroie(found: Found) -> Loaded:
    """One JSON object a receipt; a key that a receipt lacks is not asked for."""
    questions: list[Question] = []
    for path in listed(found[0], ".txt"):
        if "(" in path.name:  # copies like "X51005(1).txt", which the original leaves out as well
            continue
        row = read_object(path)
        image = image_name(f"{path.stem}.jpg", row)
        questions += (
            _question(f"{path.stem}/{key}", image, text, row.references(key, blank=True), key)
            for key, text in _RECEIPT
            if key in row.value
        )
    return Loaded(questions=tuple(questions), image_root=found[1])


def _funsd(found: Found) -> Loaded:
    """Every form field that is linked to an answer; several answers are joined by a blank."""
    asked = (question for path in listed(found[0], ".json") for question in _form(path))
    return Loaded(questions=tuple(asked), image_root=found[1])


def _form(path: Path) -> Iterator[Question]:
    form = read_object(path)
    fields = [form.child(value, f"form field {index}") for index, value in enumerate(form.items("form"))]
    linked = [row for row in fields if row.value.get("linking")]
    answers = [row for row in linked if row.value.get("label") == "answer"]
    image = image_name(f"{path.stem}.png", form)
    for row in (row for row in linked if row.value.get("label") == "question"):
        # Both loops as in the original: the answers in the order of the links, then of the form.
        texts = [
            answer.string(answer.get("text"), "text")
            for target in _targets(row)
            for answer in answers
            if answer.identity("id") == target
        ]
        joined = _joined(texts)
        if joined:
            text = f'what is "{row.string(row.get("text"), "text")}" information in the image?'
            yield _question(f"{path.stem}/{row.identity('id')}", image, text, (joined,))


def _joined(texts: list[str]) -> str:
    whole = ""
    for text in texts:
        whole = f"{whole} {text}" if whole else text
    return whole


def _targets(row: Row) -> list[str]:
    """The second ids of the links, which come as pairs."""
    targets: list[str] = []
    for link in row.items("linking"):
        pair = cast("list[object]", link) if isinstance(link, list) else []
        if len(pair) != 2 or not all(isinstance(end, int) for end in pair):
            raise row.error(f"the link {link!r:.80} is no pair of ids; give the official FUNSD file")
        targets.append(str(pair[1]))
    return targets


def _poie(found: Found) -> Loaded:
    """JSONL; parts in brackets are answers of their own beside the rest of the value."""
    questions: list[Question] = []
    for number, row in enumerate(json_lines(found[0])):
        entities = as_row(row.get("entity_dict"), row.file, f"{row.where}, entity_dict")
        image = row.image("file_name")
        for key in entities.value:
            if key not in _ENTITIES:
                raise entities.error(f"the entity {key!r:.80} is unknown; POIE has {', '.join(_ENTITIES)}")
            text = f"what is {_ENTITIES[key]} in the image?"
            value = entities.string(entities.value[key], key)
            questions.append(_question(f"{number}/{key}", image, text, _alternatives(value), key))
    return Loaded(questions=tuple(questions), image_root=found[1])


def _alternatives(value: str) -> tuple[str, ...]:
    inside: list[str] = _BRACKETED.findall(value)
    return (*(part.strip() for part in inside), _BRACKETED.sub("", value).strip())


def _question(name: str, image: str, text: str, answers: tuple[str, ...], category: str = "") -> Question:
    return Question(id=name, task=Task.VQA, image=image, text=text, references=answers, category=category)


def _benchmark(name: str, about: str, files: tuple[Expected, ...], read: Reader, n: int) -> Benchmark:
    load = loader(name, files, read)
    also = ("anls", "token-f1")
    return Benchmark(
        name=name, about=about, metric="mmocr", files=files, load=load, n=n, max_new_tokens=256, also=also
    )


_SROIE_SITE = "ICDAR 2019 SROIE task 3, training part (rrc.cvc.uab.es, ch=13, registration)"
_SROIE = (
    Expected(path="SROIE/ann/*.txt", what="one JSON object a receipt", source=_SROIE_SITE),
    Expected(path="SROIE/image/", what="receipts as .jpg", source=_SROIE_SITE),
)
_FUNSD_SITE = "FUNSD (guillaumejaume.github.io/FUNSD; non-commercial, research and education)"
_FUNSD = (
    Expected(path="FUNSD/testing_data/annotations/*.json", what="one form a file", source=_FUNSD_SITE),
    Expected(path="FUNSD/testing_data/images/", what="forms as .png", source=_FUNSD_SITE),
)
_POIE_SITE = "POIE (github.com/jfkuang/cfam)"
_POIE = (
    Expected(path="POIE/test.txt", what="JSONL with file_name and entity_dict", source=_POIE_SITE),
    Expected(path="POIE/", what="pictures, at file_name", source=_POIE_SITE),
)

BENCHMARKS: tuple[Benchmark, ...] = (
    _benchmark("mmocr-sroie", "receipts: company, date, address, total", _SROIE, _sroie, 2503),
    _benchmark("mmocr-funsd", "scanned forms: the value of a field", _FUNSD, _funsd, 588),
    _benchmark("mmocr-poie", "nutrition labels: the value of an entry", _POIE, _poie, 6321),
)
