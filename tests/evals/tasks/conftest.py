"""Small files in the format of every official annotation file, with content of our own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SUBTASKS_SPLIT = ("posters", "celebrity", "scene", "landmark", "artwork")
SUBTASKS_FLAT = (
    "existence",
    "count",
    "position",
    "color",
    "OCR",
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
)
WORD_SETS = (
    *("IIIT5K", "svt", "IC13_857", "IC15_1811", "svtp", "ct80"),
    *("cocotext", "ctw", "totaltext", "HOST", "WOST", "WordArt"),
)


def write(path: Path, content: object) -> None:
    """Text as it is, a list of objects under a .jsonl name as JSONL, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif path.suffix == ".jsonl" and isinstance(content, list):
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")


def _recognition(data: Path) -> None:
    for name in WORD_SETS:
        write(
            data / name / "test_label.txt", "image/1.png HARBOUR\nimage/2.png mill lane\n\nimage/3.png $5\n"
        )
    word = '<word id="{}" text="{}"/>'
    form = '<?xml version="1.0"?><form><line>{}</line></form>'
    second = word.format("b02-007-00-00", "ferry") + word.format("b02-007-00-01", ".")
    write(data / "IAM/xml/b02-007.xml", form.format(second))
    write(data / "IAM/xml/a01-000u.xml", form.format(word.format("a01-000u-00-00", "don&apos;t")))
    write(data / "ReCTS/test_label.txt", "1.jpg 茶馆\n2.jpg tea茶\n3.jpg 面\n")
    (data / "ReCTS/crops").mkdir()
    write(data / "HME100K/test_labels.txt", "t_1.jpg\tx ^ { 2 } = 9\nt_2.jpg\t\\frac { 1 } { 2 }\n")
    (data / "HME100K/test_images").mkdir()


def _receipts(data: Path) -> None:
    write(data / "SROIE/ann/r2.txt", {"company": "OAK BAKERY", "total": "3.40"})
    write(
        data / "SROIE/ann/r1.txt",
        {"company": "MOSS & SON", "date": "2/3/19", "address": "1 Quay", "total": "9"},
    )
    write(data / "SROIE/ann/r1(1).txt", {"company": "a copy"})
    (data / "SROIE/image").mkdir()
    form = [
        {"id": 0, "label": "question", "text": "NAME:", "linking": [[0, 2], [0, 1]]},
        {"id": 1, "label": "answer", "text": "Mara", "linking": [[0, 1]]},
        {"id": 2, "label": "answer", "text": "Finch", "linking": [[0, 2]]},
        {"id": 3, "label": "question", "text": "FAX:", "linking": []},
        {"id": 4, "label": "header", "text": "FORM", "linking": []},
    ]
    write(data / "FUNSD/testing_data/annotations/f1.json", {"form": form})
    (data / "FUNSD/testing_data/images").mkdir()
    row = {"file_name": "image_files/n1.jpg", "entity_dict": {"SS": "2 bars (40 g)", "CE-PS": "90 kcal"}}
    write(data / "POIE/test.txt", json.dumps(row) + "\n")


def _vqa(data: Path) -> None:
    text = {
        "question_id": 7,
        "image_id": "0a1b",
        "question": "what does the van say?",
        "answers": ["eggs"] * 10,
    }
    write(data / "textVQA/TextVQA_0.5.1_val.json", {"data": [text, text | {"question_id": 8}]})
    (data / "textVQA/train_images").mkdir()
    page = {
        "questionId": 3,
        "image": "documents/p_1.png",
        "question": "What is the date?",
        "answers": ["May 4", "4 May"],
    }
    write(data / "docVQA/val/val_v1.0.json", {"data": [page]})
    chart = {"questionId": 9, "image_local_name": "9.jpeg", "question": "How many?", "answers": ["12%"]}
    write(data / "infographicVQA/infographicsVQA_val_v1.0_withQT.json", {"data": [chart]})
    (data / "infographicVQA/infographicsvqa_images").mkdir()
    scene = {
        "dataset": "coco-text",
        "file_name": "c1.jpg",
        "question": "What is on the sign?",
        "answers": ["halt"],
    }
    write(data / "STVQA/train_task_3.json", {"data": [scene, scene]})
    books = {
        "B1": {
            "questions": ["Who wrote this book?", "Is it new?"],
            "answers": ["Ida Voss", "No"],
            "split": 1,
        },
        "B2": {"questions": ["What is the title of this book?"], "answers": ["Tides"], "split": 3},
    }
    write(data / "ocrVQA/dataset.json", books)
    (data / "ocrVQA/images").mkdir()
    signs = [
        {"image": "1.jpg", "annotation": [{"question": "店名是什么?", "answer": "茶馆"}]},
        {"image": "2.jpg", "annotation": [{"question": "What is sold?", "answer": "tea"}]},
    ]
    write(data / "ESTVQA/annotations/train.json", signs)
    (data / "ESTVQA/images/train").mkdir(parents=True)
    for kind in ("human", "augmented"):
        write(
            data / f"ChartQA/test/test_{kind}.json",
            [{"imgname": "1.png", "query": "How many bars?", "label": "3"}],
        )
    (data / "ChartQA/test/png").mkdir()


def _ocrbench(data: Path) -> None:
    row = {
        "dataset_name": "svt",
        "id": 5,
        "image_path": "svt/1.jpg",
        "question": "what is written in the image?",
    }
    formula = "Handwritten Mathematical Expression Recognition"
    v1 = [
        row | {"answers": "pier", "type": "Regular Text Recognition"},
        row | {"answers": ["x _ 1 = 0\n", "x_1=0"], "type": formula},
    ]
    write(data / "OCRBench/OCRBench.json", v1)
    (data / "OCRBench/OCRBench_Images").mkdir()
    v2 = [
        row | {"answers": ["pier", 5], "type": "cognition VQA en"},
        row | {"answers": ["A"], "type": "reasoning VQA en", "eval": "multiple choice"},
        row | {"answers": ["<table>"], "type": "table parsing en"},
    ]
    write(data / "OCRBench_v2/OCRBench_v2.json", v2)


def _yes_no(data: Path) -> None:
    pair = "Is there a kite? Please answer yes or no.\tYes\nIs there a {}? Please answer yes or no.\tNo\n\n"
    for name in SUBTASKS_FLAT:
        for stem, thing in (("0002", "drum"), ("0001", "lamp")):
            write(data / "MME" / name / f"{stem}.txt", pair.format(thing))
            write(data / "MME" / name / f"{stem}.png", "")
    for name in SUBTASKS_SPLIT:
        write(data / "MME" / name / "questions_answers_YN/tt1.txt", pair.format("drum"))
        write(data / "MME" / name / "images/tt1.jpg", "")
    for kind in ("random", "popular", "adversarial"):
        rows = [
            {
                "question_id": 1,
                "image": "COCO_val2014_1.jpg",
                "text": "Is there a cup in the image?",
                "label": "yes",
            },
            {
                "question_id": 2,
                "image": "COCO_val2014_1.jpg",
                "text": "Is there a bus in the image?",
                "label": "no",
            },
        ]
        write(data / f"pope/coco_pope_{kind}.json", "".join(json.dumps(row) + "\n" for row in rows))
    (data / "coco/val2014").mkdir(parents=True)


def _open(data: Path) -> None:
    row = {"question_id": 0, "image": "000000000009.jpg", "text": "What is  shown?", "category": "conv"}
    write(data / "qa90/qa90_questions.jsonl", [row])
    write(data / "qa90/qa90_gpt4_answer.jsonl", [{"question_id": 0, "text": "A boat.", "category": "conv"}])
    write(data / "text50/qa50_questions.jsonl", [row | {"image": "1.png", "category": "read"}])
    (data / "text50/images").mkdir()


def _science(data: Path) -> None:
    problem = {
        "question": "Which is  solid?",
        "choices": ["air", "ice"],
        "answer": 1,
        "subject": "natural science",
    }
    problems = {
        "12": problem | {"hint": "Look at the picture.", "image": "image.png"},
        "13": problem | {"hint": "", "image": None},
        "14": problem | {"hint": " ", "image": "choice.png", "answer": 0},
    }
    write(data / "scienceqa/problems.json", problems)
    write(data / "scienceqa/pid_splits.json", {"train": [], "test": ["14", "13", "12"]})
    (data / "scienceqa/images/test").mkdir(parents=True)


def _own(data: Path) -> None:
    write(data / "questions.jsonl", [{"image": "sub/a.png", "question": "Who?", "answers": ["Ada", "Ida"]}])
    write(data / "a.txt", "LINE ONE\nline two\n")
    write(data / "a.PNG", "")


def write_official(data: Path) -> None:
    """Every file of every benchmark, below ``data``."""
    for part in (_recognition, _receipts, _vqa, _ocrbench, _yes_no, _open, _science, _own):
        part(data)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A fresh ``--data`` folder that every benchmark can read."""
    write_official(tmp_path)
    return tmp_path
