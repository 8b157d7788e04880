"""One's own data: a folder of pictures with a file of questions, or with a text beside each picture."""

from __future__ import annotations

from llavar.errors import DataError
from llavar.evals.tasks.base import Benchmark, Expected, Found, Loaded, loader
from llavar.evals.tasks.reading import json_lines, listed, read_text
from llavar.records import Question, Task

TRANSCRIBE = "Transcribe the text in the image."
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")


def _questions(found: Found) -> Loaded:
    """JSONL ``{"image", "question", "answers": str | list, "id"?, "category"?}``, below the folder."""
    questions = tuple(
        Question(
            id=row.identity("id") if row.value.get("id") is not None else str(number),
            task=Task.VQA,
            image=row.image("image"),
            text=row.text("question"),
            references=row.references("answers"),
            category=row.string(row.value.get("category", ""), "category"),
        )
        for number, row in enumerate(json_lines(found[0]), start=1)
    )
    return Loaded(questions=questions, image_root=found[0].parent)


def _transcriptions(found: Found) -> Loaded:
    """``name.txt`` beside ``name.png``; a picture without a text, or a text without one, is an error."""
    folder = found[0]
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES]
    names = {path.stem: path.name for path in pictures}
    texts = {path.stem: path for path in listed(folder, ".txt")}
    if len(names) < len(pictures):
        raise DataError(f"{folder} holds pictures that differ in their suffix alone; give each its own name")
    alone = sorted(names.keys() ^ texts.keys())
    if alone:
        has, lacks = ("picture", "text") if alone[0] in names else ("text", "picture")
        raise DataError(
            f"{folder}: {alone[0]!r:.80} is a {has} without a {lacks}, one of {len(alone)} alone; "
            "pair them or move them away"
        )
    questions = tuple(
        Question(
            id=name,
            task=Task.TRANSCRIPTION,
            image=names[name],
            text=TRANSCRIBE,
            references=(_transcription(texts[name].name, read_text(texts[name])),),
        )
        for name in sorted(texts)
    )
    return Loaded(questions=questions, image_root=folder)


def _transcription(name: str, text: str) -> str:
    if not text.strip():
        raise DataError(f"{name} is empty; write what its picture says, or move both away")
    return text.rstrip("\n")


_OWN = "yourself"
_QUESTIONS = (Expected(path="questions.jsonl", what="image, question, answers to a line", source=_OWN),)
_TEXTS = (Expected(path="*.txt", what="the text of the picture of the same name", source=_OWN),)

BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        name="folder",
        about="your own questions about your own pictures",
        metric="token-f1",
        also=("mmocr", "anls", "exact"),
        files=_QUESTIONS,
        load=loader("folder", _QUESTIONS, _questions),
        max_new_tokens=256,
    ),
    Benchmark(
        name="folder-text",
        about="transcriptions of your own pictures",
        metric="cer",
        also=("wer",),
        files=_TEXTS,
        load=loader("folder-text", _TEXTS, _transcriptions),
        max_new_tokens=512,
    ),
)
