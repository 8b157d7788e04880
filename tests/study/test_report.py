from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from llavar.errors import DataError
from llavar.records import (
    Box,
    Comparison,
    Conversation,
    Example,
    Line,
    Reading,
    Reject,
    Report,
    Score,
    Task,
)
from llavar.study.report import (
    Curve,
    DemoReport,
    Run,
    Sample,
    Timing,
    demo_page,
    duration,
    verdict,
    write_demo_report,
)
from llavar.study.report_parts import Answer, CorpusSummary, MadeRows, OwnAnswer, OwnPicture

HOSTILE = '<script>alert("x")</script>'
RANGES = {"transcription_cer": 1.0, "vqa_accuracy": 1.0, "yes_no_score": 200.0}


def scores(share: float) -> Mapping[str, Score]:
    """The same share of every measure's range."""
    return {
        name: Score(value=share * top, low=share * top * 0.9, high=min(top, share * top * 1.1), n=100)
        for name, top in RANGES.items()
    }


def change(difference: float, p: float) -> Comparison:
    return Comparison(difference=difference, low=difference - 0.1, high=difference + 0.1, p=p, n=100)


HELPED = {
    "transcription_cer": change(-0.6, 0.0001),
    "vqa_accuracy": change(0.4, 0.012),
    "yes_no_score": change(60, 0.03),
}


@pytest.fixture
def report(tmp_path: Path) -> DemoReport:
    """A page with every part, as the demo fills it."""
    scene, photo = tmp_path / "scene.png", tmp_path / "photo.jpg"
    Image.new("RGB", (96, 96), "orange").save(scene)
    Image.new("RGB", (900, 500), "teal").save(photo)
    box = Box(left=8, top=8, right=60, bottom=20)
    lines = tuple(Line(text=text, box=box, confidence=0.87) for text in ("GRAND", "SALE"))
    row = Example(id="r", conversation=Conversation.of("<image>\nWhat is written?", "GRAND\nSALE"))
    made = MadeRows(
        image=scene,
        reading=Reading(image="scene.png", size=(96, 96), lines=lines, engine="rapidocr"),
        stage1=(row,),
        stage2=(Example(id="c", conversation=Conversation.of("What is on?", "A sale.")),),
        truth="GRAND SALE",
    )
    wrong, right = Answer(text="a circle", right=False), Answer(text="GRAND SALE", right=True)
    return DemoReport(
        title="Does it read?",
        done="Two arms were trained.",
        control="The control never sees text.",
        held_out="New words.",
        machine=(("Cores", "2"),),
        settings=(("Seed", "7"),),
        without=Report(model="control", n=300, scores=scores(0.8), failed=2, notes=("2 failed",)),
        with_=Report(model="text-rich", n=300, scores=scores(0.2)),
        comparisons=HELPED,
        timings=(Timing(step="Render", seconds=4), Timing(step="Train", seconds=121)),
        curves=tuple(
            Curve(arm=arm, stage=stage, points=tuple((i, 3 / (i + 1)) for i in range(50)))
            for stage in ("Stage 1", "Stage 2")
            for arm in ("without", "with")
        ),
        samples=(
            Sample(
                image=scene,
                task=Task.VQA,
                question="Which words?",
                reference="GRAND SALE",
                without=wrong,
                with_=right,
            ),
        ),
        samples_chosen="The first ones.",
        corpus=CorpusSummary(
            pictures=10,
            kept=8,
            rejects=(
                Reject(id="s1", stage="ocr", reason="no text", detail="0 lines"),
                Reject(id="s2", stage="ocr", reason="no text"),
            ),
            rows=(("Stage 1 rows", 8), ("Conversations", 5)),
            engine="rapidocr 3",
            ocr_cer=Score(value=0.034, low=0.027, high=0.042, n=10),
            examples=(made,),
        ),
        own=(
            OwnPicture(
                image=photo,
                made=dataclasses.replace(
                    made, image=photo, rejects=(Reject(id="p", stage="teach", reason="too short"),)
                ),
                answers=(
                    OwnAnswer(
                        question="What?", without=Answer(text=""), with_=Answer(text="sale", failed="")
                    ),
                ),
            ),
            OwnPicture(image=tmp_path / "gone.png", problem="it cannot be read"),
        ),
        limits=("It reads short text only.",),
    )


def text_of(page: str) -> str:
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body)).replace("\N{NO-BREAK SPACE}", " ")


def test_the_page_shows_every_part(report: DemoReport) -> None:
    text = text_of(demo_page(report))
    for expected in (
        "Two arms were trained.",
        "The control never sees text.",
        "80.0% \N{RIGHTWARDS ARROW} 20.0%",
        "160.0 \N{RIGHTWARDS ARROW} 40.0",
        "p &lt; 0.001",
        "p = 0.012",
        "control: 2 failed.",
        "Which words?",
        "\u2713 right",
        "\u2717 wrong",
        "8 of 10",
        "ocr: no text",
        "3.4%",
        "0.87",
        "Stage 2, assistant A sale.",
        "Text that is in it GRAND SALE",
        "photo.jpg",
        "Left out at teach: too short.",
        "(nothing)",
        "it cannot be read",
        "2 min 05 s in all",
        "It reads short text only.",
        "The first ones.",
    ):
        assert expected in text, expected


def test_the_answer_comes_first(report: DemoReport) -> None:
    text = text_of(demo_page(report))
    first = text.index("Text-rich data helped, on every measure of reading.")
    assert first < text.index("p &lt; 0.001") < text.index("The control never sees text.")
    assert first < text.index("Which words?")


def test_pictures_are_inside_the_page(report: DemoReport) -> None:
    page = demo_page(report)
    assert page.count("data:image/png;base64,") == 2  # small ones keep their pixels
    assert page.count("data:image/jpeg;base64,") == 1
    assert re.search(r'(src|href)="(?!data:)', page) is None


def test_boxes_are_drawn_in_the_picture_s_own_pixels(report: DemoReport) -> None:
    page = demo_page(report)
    assert 'viewBox="0 0 96 96"' in page
    assert '<rect x="8" y="8" width="52" height="12">' in page


def test_a_missing_picture_is_explained_not_fatal(report: DemoReport) -> None:
    assert "No picture: " in text_of(demo_page(report))
    assert "gone.png" in text_of(demo_page(report))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Text-rich data helped, on every measure of reading."),
        (
            {"vqa_accuracy": change(0.01, 0.4)},
            "Text-rich data helped transcription error and yes/no pairs; "
            "for questions answered no difference can be told from chance.",
        ),
        (
            {"transcription_cer": change(0.3, 0.001)},
            "Text-rich data hurt transcription error, though it helped questions answered and yes/no pairs.",
        ),
        ({name: change(1, 0.05) for name in HELPED}, "No effect of text-rich data can be told from chance"),
        (
            {"transcription_cer": change(0.3, 0.01), "vqa_accuracy": change(-0.3, 0.01)},
            "though it helped yes/no",
        ),
        (
            {
                "transcription_cer": change(-0.3, 0.5),
                "vqa_accuracy": change(-0.3, 0.01),
                "yes_no_score": change(0, 1),
            },
            "Text-rich data hurt questions answered.",
        ),
    ],
)
def test_the_verdict_follows_direction_and_p(
    report: DemoReport, changes: dict[str, Comparison], expected: str
) -> None:
    assert expected in verdict(dataclasses.replace(report, comparisons={**HELPED, **changes}))


def test_a_difference_that_is_none_is_not_called_better(report: DemoReport) -> None:
    none = {name: change(0.0, 0.6) for name in HELPED}
    text = text_of(demo_page(dataclasses.replace(report, comparisons=none)))
    assert text.count("no clear difference") == 3
    assert "better " not in text.replace("lower is better", "").replace("higher is better", "").replace(
        "which arm is better", ""
    )


def test_a_difference_that_other_runs_may_not_show_is_none(report: DemoReport) -> None:
    """p is small, and the interval over runs holds zero."""
    unsure = Comparison(difference=-0.2, low=-0.5, high=0.1, p=0.001, n=100)
    changed = dataclasses.replace(report, comparisons={**HELPED, "transcription_cer": unsure})
    assert "for transcription error no difference can be told from chance" in verdict(changed)


def test_every_run_is_shown(report: DemoReport) -> None:
    runs = tuple(
        Run(
            seed=seed,
            without=dict.fromkeys(RANGES, 0.9),
            with_={"transcription_cer": 0.25, "vqa_accuracy": 0.5, "yes_no_score": 60.0},
        )
        for seed in (4, 5)
    )
    text = text_of(demo_page(dataclasses.replace(report, runs=runs)))
    assert "to each of 2 models per arm" in text
    assert "Transcription error 4 90.0% 25.0% \N{MINUS SIGN}65.0 5 90.0% 25.0%" in text
    alone = text_of(demo_page(dataclasses.replace(report, runs=runs[:1])))
    assert "One training run per arm" in alone
    assert "Each training run" not in alone


def test_metrics_must_agree(report: DemoReport) -> None:
    fewer = {name: HELPED[name] for name in ("vqa_accuracy",)}
    with pytest.raises(DataError, match="must name the same"):
        demo_page(dataclasses.replace(report, comparisons=fewer))
    other = {"anls": scores(0.5)["vqa_accuracy"]}
    strange = dataclasses.replace(
        report,
        without=dataclasses.replace(report.without, scores=other),
        with_=dataclasses.replace(report.with_, scores=other),
        comparisons={"anls": HELPED["vqa_accuracy"]},
    )
    with pytest.raises(DataError, match="anls"):
        demo_page(strange)


def test_a_page_of_scores_alone(report: DemoReport) -> None:
    bare = DemoReport(
        title="t",
        done="d",
        control="c",
        without=report.without,
        with_=report.with_,
        comparisons=report.comparisons,
    )
    text = text_of(demo_page(bare))
    assert "Text-rich data helped" in text
    for title in ("Your pictures", "Training", "How long", "cannot do", "The same questions"):
        assert title not in text


def test_hostile_text_stays_text(report: DemoReport, tmp_path: Path) -> None:
    """Text from pictures, engines, models, file names and messages, none of which may become markup."""
    line = Line(text=HOSTILE, box=Box(left=0, top=0, right=1, bottom=1))
    made = MadeRows(
        image=tmp_path / "scene.png",
        reading=Reading(image=HOSTILE, size=(96, 96), lines=(line,), engine=HOSTILE),
        stage1=(Example(id=HOSTILE, conversation=Conversation.of(HOSTILE, HOSTILE)),),
        rejects=(Reject(id=HOSTILE, stage=HOSTILE, reason=HOSTILE, detail=HOSTILE),),
        truth=HOSTILE,
    )
    answer = Answer(text=HOSTILE, failed=HOSTILE)
    name = Path('<script>alert("x")<') / "script>.png"
    page = demo_page(
        dataclasses.replace(
            report,
            title=HOSTILE,
            done=HOSTILE,
            control=HOSTILE,
            without=dataclasses.replace(report.without, model=HOSTILE, notes=(HOSTILE,)),
            settings=((HOSTILE, HOSTILE),),
            timings=(Timing(step=HOSTILE, seconds=1),),
            curves=(Curve(arm=HOSTILE, stage=HOSTILE, points=((0, 1.0), (1, float("nan")))),),
            corpus=CorpusSummary(
                pictures=1,
                kept=0,
                rejects=made.rejects,
                rows=((HOSTILE, 1),),
                engine=HOSTILE,
                examples=(made,),
            ),
            own=(
                OwnPicture(
                    image=name,
                    made=made,
                    answers=(OwnAnswer(question=HOSTILE, without=answer, with_=answer),),
                    problem=HOSTILE,
                ),
            ),
            limits=(HOSTILE,),
        )
    )
    assert "<script" not in page.lower()
    assert page.count("&lt;script&gt;") > 20


def test_long_readings_and_many_rejects_are_cut_and_counted(report: DemoReport) -> None:
    assert report.corpus is not None
    example = report.corpus.examples[0]
    long = dataclasses.replace(example.reading, lines=example.reading.lines * 50)
    corpus = dataclasses.replace(
        report.corpus,
        rejects=tuple(Reject(id=str(i), stage="ocr", reason="no text") for i in range(250)),
        examples=(dataclasses.replace(example, reading=long),),
    )
    text = text_of(demo_page(dataclasses.replace(report, corpus=corpus)))
    assert "and 76 more lines" in text
    assert "the first 200 of 250" in text


def test_writing_makes_the_folder_and_leaves_no_draft(report: DemoReport, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_demo_report(report, path)
    write_demo_report(dataclasses.replace(report, title="Second \u00fc"), path)
    assert "Second \u00fc" in path.read_text("utf-8")
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_page(
    report: DemoReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    write_demo_report(report, path)
    before = path.read_bytes()

    def full(_self: Path, _target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_demo_report(dataclasses.replace(report, title="Second"), path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".report*"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
