"""Questions about text in scenes, documents, book covers, infographics and charts.

The sets that LLaVAR reports come twice: under their own name with the metric of their field, and as
``mmocr-...`` with the rule of the paper. Both read the same files, in folders named as in MultimodalOCR's
``data`` folder, and ask the question as it stands in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import islice

from llavar.evals.tasks.base import Benchmark, Expected, Found, Loaded, Reader, loader
from llavar.evals.tasks.reading import Row, image_name, read_object, rows
from llavar.records import Question, Task

_FIRST = 5000
"""How many questions of ST-VQA, OCR-VQA and EST-VQA MultimodalOCR asks."""
_TEST_SPLIT = 3
"""OCR-VQA's ``split``: 1 training, 2 validation, 3 test."""
_CHINESE = re.compile("[\u4e00-\u9fa5]")
_BOOK_QUESTIONS = (
    ("author", re.compile(r"who (is|wrote)|author", re.IGNORECASE)),
    ("year", re.compile(r"\byear\b", re.IGNORECASE)),
    ("title", re.compile(r"\btitle\b", re.IGNORECASE)),
)


def _textvqa(found: Found) -> Loaded:
    """``{"data": [{"question_id", "image_id", "question", "answers": [10 strings]}]}``."""
    return _from_rows(found, key="data", name="question_id", image="image_id", suffix=".jpg")


def _docvqa(found: Found) -> Loaded:
    """``{"data": [{"questionId", "image": "documents/...", "question", "answers"}]}``."""
    return _from_rows(found, key="data", name="questionId", image="image")


def _infovqa(found: Found) -> Loaded:
    """``{"data": [{"questionId", "image_local_name", "question", "answers"}]}``."""
    return _from_rows(found, key="data", name="questionId", image="image_local_name")


def _from_rows(found: Found, *, key: str, name: str, image: str, suffix: str = "") -> Loaded:
    questions = tuple(
        Question(
            id=row.identity(name),
            task=Task.VQA,
            image=row.image(image, suffix=suffix),
            text=row.text("question"),
            references=row.references("answers"),
        )
        for row in rows(found[0], key=key)
    )
    return Loaded(questions=questions, image_root=found[1])


def _stvqa(found: Found) -> Loaded:
    """``{"data": [{"dataset", "file_name", "question", "answers"}]}``, the first of them.

    The category is the set that the picture is from.
    """
    questions = tuple(
        Question(
            id=str(index),
            task=Task.VQA,
            image=image_name(f"{row.identity('dataset')}/{row.identity('file_name')}", row),
            text=row.text("question"),
            references=row.references("answers", blank=True),
            category=row.identity("dataset"),
        )
        for index, row in enumerate(islice(rows(found[0], key="data"), _FIRST))
    )
    return Loaded(questions=questions, image_root=found[1])


def _ocrvqa(found: Found, *, split: int = 0, first: int | None = _FIRST) -> Loaded:
    """``{book: {"questions": [...], "answers": [...], "split"}}``: the first, or those of a split."""
    books = read_object(found[0])
    asked = (
        question
        for name in books.value
        for question in _book(books.child(books.value[name], f"book {name!r:.40}"), name, split)
    )
    return Loaded(questions=tuple(islice(asked, first)), image_root=found[1])


def _book(row: Row, name: str, split: int) -> Iterator[Question]:
    if split and row.get("split") != split:
        return
    asked, answers = row.items("questions"), row.items("answers")
    if len(asked) != len(answers):
        raise row.error(f"it has {len(asked)} questions and {len(answers)} answers; give the official file")
    for index, (question, answer) in enumerate(zip(asked, answers, strict=True)):
        text = row.string(question, "questions")
        yield Question(
            id=f"{name}/{index}",
            task=Task.VQA,
            image=image_name(f"{name}.jpg", row),
            text=text,
            references=(row.string(answer, "answers"),),
            category=_book_category(text),
        )


def _book_category(question: str) -> str:
    if re.match(r"(is|are|was|does|do) ", question, re.IGNORECASE):
        return "yes/no"
    return next((name for name, pattern in _BOOK_QUESTIONS if pattern.search(question)), "genre")


def _estvqa(found: Found, *, chinese: bool) -> Loaded:
    """``[{"image", "annotation": [{"question", "answer"}]}]``, the first of the pictures of one language.

    A picture belongs to Chinese if its first question holds a Chinese character, as in MultimodalOCR's
    ``process_ESTVQA.py``, which wrote ``cn_train.json`` and ``en_train.json`` from ``train.json``.
    """
    asked = (question for row in rows(found[0]) for question in _annotations(row, chinese))
    return Loaded(questions=tuple(islice(asked, _FIRST)), image_root=found[1])


def _annotations(row: Row, chinese: bool) -> Iterator[Question]:
    annotations = [row.child(value, f"annotation {n}") for n, value in enumerate(row.items("annotation"))]
    if not annotations or bool(_CHINESE.search(annotations[0].text("question"))) is not chinese:
        return
    for index, annotation in enumerate(annotations):
        yield Question(
            id=f"{row.where.removeprefix('row ')}/{index}",
            task=Task.VQA,
            image=row.image("image"),
            text=annotation.text("question"),
            references=annotation.references("answer", blank=True),
        )


def _chartqa(found: Found) -> Loaded:
    """``[{"imgname", "query", "label"}]``: questions by people, then those made from captions."""
    questions = tuple(
        Question(
            id=f"{kind}/{index}",
            task=Task.VQA,
            image=row.image("imgname"),
            text=row.text("query"),
            references=row.references("label", numbers=True),
            category=kind,
        )
        for kind, path in (("human", found[0]), ("augmented", found[1]))
        for index, row in enumerate(rows(path))
    )
    return Loaded(questions=questions, image_root=found[2])


_TEXTVQA_SITE = "TextVQA v0.5.1 (textvqa.org/dataset; CC BY 4.0)"
_TEXTVQA = (
    Expected(
        path="textVQA/TextVQA_0.5.1_val.json | textvqa/TextVQA_0.5.1_val.json",
        what="questions with ten answers each",
        source=_TEXTVQA_SITE,
    ),
    Expected(
        path="textVQA/train_images/ | textvqa/train_images/",
        what="OpenImages pictures, train_val_images.zip",
        source=_TEXTVQA_SITE,
    ),
)
_DOCVQA_SITE = "DocVQA task 1 (rrc.cvc.uab.es, ch=17, registration)"
_DOCVQA = (
    Expected(
        path=" | ".join(
            f"{folder}/{name}"
            for folder in ("docVQA/val", "docvqa/val", "docvqa")
            for name in ("val_v1.0.json", "val_v1.0_withQT.json")
        ),
        what="questions of the validation split",
        source=_DOCVQA_SITE,
    ),
    Expected(path="docVQA/val/ | docvqa/val/ | docvqa/", what="pages, below documents/", source=_DOCVQA_SITE),
)
_INFOVQA_SITE = "InfographicVQA (rrc.cvc.uab.es, ch=17, registration)"
_INFOVQA = (
    Expected(
        path=" | ".join(
            f"infographicVQA/{name}"
            for name in ("infographicsVQA_val_v1.0_withQT.json", "infographicsVQA_val_v1.0.json")
        ),
        what="questions of the validation split",
        source=_INFOVQA_SITE,
    ),
    Expected(
        path="infographicVQA/infographicsvqa_images/ | infographicVQA/images/",
        what="infographics",
        source=_INFOVQA_SITE,
    ),
)
_STVQA_SITE = "ST-VQA task 3, training part (rrc.cvc.uab.es, ch=11, registration)"
_STVQA = (
    Expected(
        path="STVQA/train_task_3.json | stvqa/train_task_3.json",
        what="questions of the training part, the only ones with public answers",
        source=_STVQA_SITE,
    ),
    Expected(
        path="STVQA/train_imgs/ | STVQA/ | stvqa/", what="pictures, as coco-text/*.jpg", source=_STVQA_SITE
    ),
)
_OCRVQA_SITE = "OCR-VQA-200K (ocr-vqa.github.io)"
_OCRVQA = (
    Expected(path="ocrVQA/dataset.json | ocrvqa/dataset.json", what="questions by book", source=_OCRVQA_SITE),
    Expected(path="ocrVQA/images/ | ocrvqa/images/", what="covers, as <book>.jpg", source=_OCRVQA_SITE),
)
_ESTVQA_SITE = "EST-VQA, training part (github.com/xinke-wang/EST-VQA)"
_CHARTQA_SITE = "ChartQA (github.com/vis-nlp/ChartQA; GPL-3.0)"
_CHARTQA = (
    Expected(
        path="ChartQA/test/test_human.json | ChartQA Dataset/test/test_human.json",
        what="questions by people",
        source=_CHARTQA_SITE,
    ),
    Expected(
        path="ChartQA/test/test_augmented.json | ChartQA Dataset/test/test_augmented.json",
        what="questions made from captions",
        source=_CHARTQA_SITE,
    ),
    Expected(path="ChartQA/test/png/ | ChartQA Dataset/test/png/", what="charts", source=_CHARTQA_SITE),
)


def _estvqa_files(language: str) -> tuple[Expected, ...]:
    annotations = f"ESTVQA/annotations/{language}_train.json | ESTVQA/annotations/train.json"
    return (
        Expected(path=annotations, what="questions by picture", source=_ESTVQA_SITE),
        Expected(path="ESTVQA/images/train/", what="pictures", source=_ESTVQA_SITE),
    )


def _benchmark(
    name: str,
    about: str,
    files: tuple[Expected, ...],
    read: Reader,
    n: int,
    metric: str = "mmocr",
    also: tuple[str, ...] = (),
) -> Benchmark:
    load = loader(name, files, read)
    return Benchmark(
        name=name, about=about, metric=metric, files=files, load=load, n=n, max_new_tokens=256, also=also
    )


_TEST_BOOKS = partial(_ocrvqa, split=_TEST_SPLIT, first=None)
_CN, _EN = partial(_estvqa, chinese=True), partial(_estvqa, chinese=False)

BENCHMARKS: tuple[Benchmark, ...] = (
    _benchmark("textvqa", "scene text, validation", _TEXTVQA, _textvqa, 5000, "textvqa", ("mmocr", "anls")),
    _benchmark("docvqa", "scanned pages, validation", _DOCVQA, _docvqa, 5349, "anls", ("mmocr", "anls-raw")),
    _benchmark(
        "infovqa", "infographics, validation", _INFOVQA, _infovqa, 2801, "anls", ("mmocr", "anls-raw")
    ),
    _benchmark(
        "stvqa", "scene text, first 5000 of training", _STVQA, _stvqa, _FIRST, "mmocr", ("stvqa", "anls")
    ),
    _benchmark(
        "ocrvqa", "book covers, the first 5000", _OCRVQA, _ocrvqa, _FIRST, "mmocr", ("exact", "token-f1")
    ),
    _benchmark("ocrvqa-test", "book covers, test", _OCRVQA, _TEST_BOOKS, 0, "exact", ("mmocr", "token-f1")),
    _benchmark("chartqa", "charts, test", _CHARTQA, _chartqa, 2500, "relaxed", ("exact", "mmocr")),
    _benchmark("mmocr-textvqa", "TextVQA under the paper's rule", _TEXTVQA, _textvqa, 5000),
    _benchmark("mmocr-docvqa", "DocVQA under the paper's rule", _DOCVQA, _docvqa, 5349),
    _benchmark("mmocr-stvqa", "ST-VQA, first 5000, the paper's rule", _STVQA, _stvqa, _FIRST),
    _benchmark("mmocr-ocrvqa", "OCR-VQA, first 5000, the paper's rule", _OCRVQA, _ocrvqa, _FIRST),
    _benchmark("mmocr-estvqa-cn", "EST-VQA in Chinese, first 5000", _estvqa_files("cn"), _CN, _FIRST),
    _benchmark("mmocr-estvqa-en", "EST-VQA in English, first 5000", _estvqa_files("en"), _EN, _FIRST),
)
