"""Recognition of words, lines and formulas as in MultimodalOCR (``datasets/ocr_dataset.py`` and others).

Folders are named as in its ``data`` folder, which ``--data`` may name as it is. The question is the same for
all pictures of a set and the metric looks for the truth inside the answer.
"""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from llavar.errors import DataError
from llavar.evals.tasks.base import Benchmark, Expected, Found, Loaded, Reader, loader
from llavar.evals.tasks.reading import image_name, listed, text_lines, text_row
from llavar.records import Question, Task

WORD = "what is written in the image?"
CHINESE = "What are the Chinese characters in the image?"
FORMULA = "Please write out the expression of the formula in the image using LaTeX format."

_COLLECTED = "the text-recognition test sets that MultimodalOCR's README links to"
_FIRST = 3000
"""How many IAM and ReCTS pictures MultimodalOCR asks about."""
_FIRST_FORMULAS = 5000
_ALL_CHINESE = re.compile("[\u4e00-\u9fa5]+")
_SPECIAL = re.compile(r"[^a-zA-Z0-9\s]")

_WORDS = (
    ("IIIT5K", 3000, "cropped words, IIIT 5K"),
    ("svt", 647, "cropped words, Street View Text"),
    ("IC13_857", 857, "cropped words, ICDAR 2013"),
    ("IC15_1811", 1811, "cropped words, ICDAR 2015"),
    ("svtp", 645, "words in perspective, SVT-P"),
    ("ct80", 288, "curved words, CUTE80"),
    ("cocotext", 9896, "cropped words, COCO-Text"),
    ("ctw", 1572, "curved words, CTW1500"),
    ("totaltext", 2201, "curved words, Total-Text"),
    ("HOST", 2416, "heavily occluded words"),
    ("WOST", 2416, "weakly occluded words"),
    ("WordArt", 1511, "artistic words"),
)
"""Folder, number of words, what they are."""


def _words(found: Found) -> Loaded:
    """``image text`` to a line, cut at blanks; like the original, only the second piece is the truth."""
    pairs = _pairs(found[0])
    questions = tuple(_question(str(index), image, WORD, truth) for index, (image, truth) in enumerate(pairs))
    return Loaded(questions=questions, image_root=found[1])


def _rects(found: Found) -> Loaded:
    """The first pictures whose text is all Chinese, which is how the original's list was made."""
    chinese = (pair for pair in _pairs(found[0]) if _ALL_CHINESE.fullmatch(pair[1]))
    kept = enumerate(islice(chinese, _FIRST))
    questions = tuple(_question(str(index), image, CHINESE, truth) for index, (image, truth) in kept)
    return Loaded(questions=questions, image_root=found[1])


def _formulas(found: Found) -> Loaded:
    """``image <tab> LaTeX`` to a line."""
    questions: list[Question] = []
    for number, line in islice(text_lines(found[0]), _FIRST_FORMULAS):
        row = text_row(found[0], number)
        image, tab, rest = line.partition("\t")
        truth = rest.split("\t")[0]
        if not tab or not truth.strip():
            raise row.error("it is not an image, a tab and a formula; give the official test_labels.txt")
        questions.append(_question(str(len(questions)), image_name(image, row), FORMULA, truth))
    return Loaded(questions=tuple(questions), image_root=found[1])


def _handwriting(found: Found) -> Loaded:
    """The first words of IAM's forms, form by form in the order of their names.

    The original takes them in the order in which the file system lists the forms, so that its 3000 words
    differ from machine to machine; ours are always the same and need not be the published ones.
    """
    words = (word for path in listed(found[0], ".xml") for word in _form(path))
    questions = tuple(islice(words, _FIRST))
    return Loaded(questions=questions, image_root=found[1])


def _form(path: Path) -> list[Question]:
    form = path.name.split(".")[0]
    row = text_row(path, 1)
    questions: list[Question] = []
    for name, text in _xml_words(path):
        if _SPECIAL.sub("", text):
            image = image_name(f"{form.split('-')[0]}/{form}/{name}.png", row)
            questions.append(_question(name, image, WORD, text))
    return questions


def _xml_words(path: Path) -> list[tuple[str, str]]:
    """Id and text of every ``word`` element. Files that declare entities are refused: they can explode."""
    from xml.parsers import expat

    words: list[tuple[str, str]] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "word":
            if not attributes.get("id") or "text" not in attributes:
                raise DataError(f"{path}: a word has no id or no text; give IAM's official XML")
            words.append((attributes["id"], attributes["text"]))

    def entity(*_: object) -> None:
        raise DataError(f"{path} declares XML entities, which no official file does; download it again")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise DataError(f"{path} is not valid XML ({error}); download it again") from None
    return words


def _pairs(path: Path) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for number, line in text_lines(path):
        row = text_row(path, number)
        pieces = line.split()
        if len(pieces) < 2:
            raise row.error(f"{line.strip()!r:.80} is not an image and its text; give the official file")
        pairs.append((image_name(pieces[0], row), pieces[1]))
    return pairs


def _question(name: str, image: str, text: str, truth: str) -> Question:
    return Question(id=name, task=Task.TRANSCRIPTION, image=image, text=text, references=(truth,))


def _word_set(folder: str, n: int, about: str) -> Benchmark:
    name = f"mmocr-{folder.lower().split('_')[0]}"
    labels = Expected(path=f"{folder}/test_label.txt", what="image and word to a line", source=_COLLECTED)
    files = (labels, Expected(path=f"{folder}/", what="its pictures", source=_COLLECTED))
    return _benchmark(name, about, "mmocr-recognition", files, _words, n)


def _benchmark(
    name: str, about: str, metric: str, files: tuple[Expected, ...], read: Reader, n: int
) -> Benchmark:
    load = loader(name, files, read)
    return Benchmark(
        name=name, about=about, metric=metric, files=files, load=load, n=n, max_new_tokens=256, also=("cer",)
    )


_IAM_SITE = "the IAM Handwriting Database (University of Bern, registration)"
_IAM = (
    Expected(path="IAM/xml/*.xml", what="one XML file a form", source=_IAM_SITE),
    Expected(path="IAM/words/ | IAM/", what="pictures of words, as a01/a01-000u/*.png", source=_IAM_SITE),
)
_RECTS_SITE = "ICDAR 2019 ReCTS (rrc.cvc.uab.es, ch=12), cropped to lines"
_RECTS = (
    Expected(path="ReCTS/test_label.txt", what="image and text to a line", source=_RECTS_SITE),
    Expected(path="ReCTS/crops/", what="its pictures", source=_RECTS_SITE),
)
_HME_SITE = "HME100K (ai.100tal.com, registration)"
_HME = (
    Expected(
        path="HME100K/test_labels.txt | HME100K/test/test_labels.txt",
        what="image, tab, formula to a line",
        source=_HME_SITE,
    ),
    Expected(
        path="HME100K/test_images/ | HME100K/test/test_images/", what="pictures of formulas", source=_HME_SITE
    ),
)

BENCHMARKS: tuple[Benchmark, ...] = (
    *(_word_set(folder, n, about) for folder, n, about in _WORDS),
    _benchmark("mmocr-iam", "handwritten words, IAM", "mmocr-recognition", _IAM, _handwriting, _FIRST),
    _benchmark("mmocr-rects", "Chinese signs, ReCTS", "mmocr-rects", _RECTS, _rects, _FIRST),
    _benchmark("mmocr-hme100k", "handwritten formulas", "mmocr-hme", _HME, _formulas, _FIRST_FORMULAS),
)
