"""The released question files of qa90 and of the 50 text-rich pictures, through the readers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from llavar.evals import tasks


def _linked(data: Path, files: dict[str, Path]) -> None:
    for name, path in files.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).symlink_to(path)


def test_qa90(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "llava/qa90"
    names = ("qa90_questions.jsonl", "qa90_gpt4_answer.jsonl")
    _linked(tmp_path, {f"qa90/{name}": source / name for name in names})
    (tmp_path / "coco/val2014").mkdir(parents=True)
    loaded = tasks.get("qa90").load(tmp_path)
    assert len(loaded.questions) == tasks.get("qa90").n
    assert len({question.image for question in loaded.questions}) == 30
    categories = Counter(question.category for question in loaded.questions)
    assert categories == {"conv": 30, "detail": 30, "complex": 30}
    assert all(question.image.startswith("COCO_val2014_0000") for question in loaded.questions)
    assert all(len(question.references) == 1 for question in loaded.questions)


def test_text50(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "llavar/files"
    names = ("qa50_questions.jsonl", "qa50_gpt4_answer.jsonl")
    _linked(tmp_path, {f"text50/{name}": source / name for name in names})
    (tmp_path / "text50/images").mkdir()
    loaded = tasks.get("text50").load(tmp_path)
    assert len(loaded.questions) == tasks.get("text50").n
    assert {question.category for question in loaded.questions} == {"read"}
    assert loaded.questions[0].image == "1.png"
    assert all(question.references[0].strip() for question in loaded.questions)
