from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from llavar.errors import ConfigError, DataError, FetchError, ImageError, ModelError
from llavar.evals.run import Asking, compare, evaluate, is_right, summarise, verify
from llavar.generate.base import Decoding, Outcome, Request
from llavar.records import Prediction, Question, Status, Task


@dataclass
class Echo:
    """Answers with the question in capitals; fails on pictures whose name begins with ``bad``."""

    name: str = "echo"
    seen: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    about: Mapping[str, str] = field(default_factory=dict)

    def answer(self, requests: Sequence[Request]) -> list[str]:
        self.batches.append(len(requests))
        for request in requests:
            if Path(str(request.image)).name.startswith("bad"):
                raise ImageError(f"{request.image} is not a picture")
        self.seen += [request.question for request in requests]
        return [request.question.upper() for request in requests]


def ask(
    name: str, task: Task = Task.VQA, image: str = "a.png", reference: str = "X", group: str = ""
) -> Question:
    return Question(id=name, task=task, image=image, text=f"q {name}", references=(reference,), group=group)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.png", "bad.png"):
        (folder / name).write_bytes(name.encode())
    return folder


QUESTIONS = tuple(ask(str(i), image="ab"[i % 2] + ".png") for i in range(5))


def test_predictions_come_in_order_and_are_written(root: Path, tmp_path: Path) -> None:
    out, steps = tmp_path / "new" / "p.jsonl", list[tuple[int, int]]()
    result = evaluate(
        Echo(), QUESTIONS, image_root=root, out=out, batch_size=2, progress=lambda *at: steps.append(at)
    )
    assert [p.question for p in result] == [q.id for q in QUESTIONS]
    assert [json.loads(line)["question"] for line in out.read_text().splitlines()] == list("02413")
    assert [p.text for p in result] == [f"Q {i}" for i in range(5)]
    assert len(out.read_text().splitlines()) == 5
    assert steps == [(done, 5) for done in range(6)]


def test_a_second_run_asks_nothing(root: Path, tmp_path: Path) -> None:
    first, again = Echo(), Echo()
    one = evaluate(first, QUESTIONS, image_root=root, out=tmp_path / "p.jsonl")
    two = evaluate(again, QUESTIONS, image_root=root, out=tmp_path / "p.jsonl")
    assert one == two
    assert again.batches == []


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_line_is_asked_again(root: Path, tmp_path: Path, cut: int) -> None:
    out = tmp_path / "p.jsonl"
    evaluate(Echo(), QUESTIONS, image_root=root, out=out)
    out.write_bytes(out.read_bytes()[:-cut])
    again = Echo()
    result = evaluate(again, QUESTIONS, image_root=root, out=out)
    assert again.seen == ["q 3"]  # the last one that was asked
    assert [p.text for p in result] == [f"Q {i}" for i in range(5)]
    assert [json.loads(line)["question"] for line in out.read_text().splitlines()] == list("02413")


def test_an_interrupted_run_goes_on(root: Path, tmp_path: Path) -> None:
    class Interrupted(Echo):
        def answer(self, requests: Sequence[Request]) -> list[str]:
            if self.batches:
                raise KeyboardInterrupt
            return super().answer(requests)

    with pytest.raises(KeyboardInterrupt):
        evaluate(Interrupted(), QUESTIONS, image_root=root, out=tmp_path / "p.jsonl", batch_size=2)
    again = Echo()
    evaluate(again, QUESTIONS, image_root=root, out=tmp_path / "p.jsonl", batch_size=2)
    assert again.seen == ["q 1", "q 3", "q 4"]


def test_only_answers_to_the_same_thing_are_kept(root: Path, tmp_path: Path) -> None:
    out, questions = tmp_path / "p.jsonl", QUESTIONS[:2]
    evaluate(Echo(), questions, image_root=root, out=out)

    def asked(echo: Echo, changed: Sequence[Question] = questions, tokens: int = 128) -> list[str]:
        evaluate(echo, changed, image_root=root, out=out, max_new_tokens=tokens)
        return echo.seen

    assert asked(Echo(name="other")) == ["q 0", "q 1"]
    assert asked(Echo(), [replace(questions[0], text="new"), questions[1]]) == ["new"]
    assert asked(Echo(), tokens=7) == ["q 0", "q 1"]
    assert asked(Echo(about={"transform": "fit"})) == ["q 0", "q 1"]
    assert asked(Echo()) == []
    (root / "a.png").write_bytes(b"another picture")
    assert asked(Echo()) == ["q 0"]


def test_one_broken_picture_costs_one_answer_and_is_tried_again(root: Path, tmp_path: Path) -> None:
    questions = (ask("0"), ask("1", image="bad.png"), ask("2"))
    result = evaluate(Echo(), questions, image_root=root, out=tmp_path / "p.jsonl")
    assert [p.status for p in result] == [Status.OK, Status.FAILED, Status.OK]
    assert "bad.png is not a picture" in result[1].error
    assert result[1].text == ""
    again = Echo()
    evaluate(again, questions, image_root=root, out=tmp_path / "p.jsonl")
    assert again.batches == [1]


@pytest.mark.parametrize(
    "asking",
    [
        Asking(decoding=Decoding(temperature=0.5)),
        Asking(decoding=Decoding(temperature=0.5, seed=1)),
        Asking(image_first=True),
        Asking(suffix="Answer briefly."),
        Asking(delete_newlines=True),
    ],
)
def test_another_way_of_asking_is_another_question(root: Path, tmp_path: Path, asking: Asking) -> None:
    out, said, first, second = tmp_path / "p.jsonl", list[str](), Echo(), Echo()
    evaluate(first, QUESTIONS, image_root=root, out=out, asking=Asking(decoding=Decoding(temperature=0.4)))
    evaluate(second, QUESTIONS, image_root=root, out=out, asking=asking, say=said.append)
    assert len(second.seen) == 5
    assert said == [f"5 earlier replies in {out} were made with other settings; kept there, not used"]
    evaluate(again := Echo(), QUESTIONS, image_root=root, out=out, asking=asking)
    assert again.seen == []


def test_a_seed_makes_no_difference_to_greedy_answers(root: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "p.jsonl", Echo()
    evaluate(Echo(), QUESTIONS, image_root=root, out=out)
    evaluate(again, QUESTIONS, image_root=root, out=out, asking=Asking(decoding=Decoding(seed=9, top_p=0.3)))
    assert again.seen == []


def test_what_is_asked(root: Path, tmp_path: Path) -> None:
    asked: list[Request] = []

    class Listener(Echo):
        def answer(self, requests: Sequence[Request]) -> list[str]:
            asked.extend(requests)
            return ["a\nb\n" for _ in requests]

    drawn = Decoding(temperature=0.2, seed=3)
    how = Asking(max_new_tokens=7, decoding=drawn, image_first=True, suffix="Short!", delete_newlines=True)
    (said,) = evaluate(Listener(), QUESTIONS[:1], image_root=root, out=tmp_path / "p.jsonl", asking=how)
    assert asked == [
        Request(
            image=root / "a.png",
            question="q 0\nShort!",
            max_new_tokens=7,
            decoding=drawn,
            image_first=True,
            id="0",
        )
    ]
    assert said.text == "ab"
    with pytest.raises(ConfigError, match="max_new_tokens is 0"):
        Asking(max_new_tokens=0)


def test_the_answers_that_count_are_written_apart(root: Path, tmp_path: Path) -> None:
    out, kept = tmp_path / "p.jsonl", tmp_path / "kept.jsonl"
    evaluate(Echo(name="other"), QUESTIONS, image_root=root, out=out)
    said = evaluate(Echo(), QUESTIONS, image_root=root, out=out, kept=kept)
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [row["text"] for row in rows] == [p.text for p in said]
    assert [row["question"] for row in rows] == list("01234")
    assert len(out.read_text().splitlines()) == 10
    assert {row["key"] for row in rows} < {json.loads(line)["key"] for line in out.read_text().splitlines()}


@dataclass
class Stream(Echo):
    """Answers one by one, the last question first; fails on ``bad`` pictures."""

    def stream(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        for index in reversed(range(len(requests))):
            request = requests[index]
            self.seen.append(request.question)
            if Path(str(request.image)).name.startswith("bad"):
                yield Outcome(index=index, error=FetchError("the server said no"))
            else:
                yield Outcome(index=index, text=request.question.upper(), seconds=0.5)


def test_a_stream_is_written_as_it_comes(root: Path, tmp_path: Path) -> None:
    out, questions = tmp_path / "p.jsonl", (*QUESTIONS, ask("5", image="bad.png"))
    lengths: list[int] = []
    result = evaluate(
        Stream(),
        questions,
        image_root=root,
        out=out,
        progress=lambda *_: lengths.append(len(out.read_text().splitlines())),
    )
    assert lengths == list(range(7))
    assert [p.text for p in result] == [f"Q {i}" for i in range(5)] + [""]
    assert (result[5].status, result[5].error) == (Status.FAILED, "the server said no")
    evaluate(again := Stream(), questions, image_root=root, out=out)
    assert again.seen == ["q 5"]


def test_asking_alone_finds_answers_that_depend_on_the_batch(root: Path, tmp_path: Path) -> None:
    class Dependent(Echo):
        def answer(self, requests: Sequence[Request]) -> list[str]:
            said = super().answer(requests)
            return [text + "!" * (len(said) > 1 and text == "Q 2") for text in said]

    how = Asking()
    given = {"image_root": root, "asking": how}
    said = evaluate(Dependent(), QUESTIONS, out=tmp_path / "p.jsonl", **given)
    checked = verify(Dependent(), QUESTIONS, said, 5, **given)
    assert (checked.n, checked.equal, checked.unequal) == (5, 4, ("2",))
    assert verify(Echo(), QUESTIONS, said, 2, **given).n == 2
    assert verify(Dependent(), QUESTIONS, said, 99, **given).n == 5
    none = [replace(p, status=Status.FAILED) for p in said]
    assert verify(Dependent(), QUESTIONS, none, 5, **given).n == 0


def test_a_defect_is_not_a_failed_prediction(root: Path, tmp_path: Path) -> None:
    class Broken(Echo):
        def answer(self, requests: Sequence[Request]) -> list[str]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate(Broken(), QUESTIONS, image_root=root, out=tmp_path / "p.jsonl")


def test_a_generator_must_answer_every_request(root: Path, tmp_path: Path) -> None:
    class Lazy(Echo):
        def answer(self, requests: Sequence[Request]) -> list[str]:
            return ["one"]

    with pytest.raises(ModelError, match="1 answers to 5 requests"):
        evaluate(Lazy(), QUESTIONS, image_root=root, out=tmp_path / "p.jsonl")


@pytest.mark.parametrize("image", ["../secret.png", "/etc/passwd", "x/../../y.png"])
def test_pictures_outside_the_folder_are_refused(root: Path, tmp_path: Path, image: str) -> None:
    with pytest.raises(DataError, match="outside"):
        evaluate(Echo(), [ask("0", image=image)], image_root=root, out=tmp_path / "p.jsonl")


def test_a_question_without_a_picture(root: Path, tmp_path: Path) -> None:
    result = evaluate(Echo(), [ask("0", image="")], image_root=root, out=tmp_path / "p.jsonl")
    assert result[0].text == "Q 0"


@pytest.mark.parametrize("line", ["not json", "[]", '{"key": 1}', "[" * 100_000])
def test_a_foreign_file_is_refused_with_its_line(root: Path, tmp_path: Path, line: str) -> None:
    out = tmp_path / "p.jsonl"
    evaluate(Echo(), QUESTIONS, image_root=root, out=out)
    out.write_text(out.read_text() + line + "\n")
    with pytest.raises(DataError, match="line 6 "):
        evaluate(Echo(), QUESTIONS, image_root=root, out=out)


def test_doubled_ids_and_no_batch_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'0'"):
        evaluate(Echo(), [ask("0"), ask("0")], image_root=root, out=tmp_path / "p.jsonl")
    with pytest.raises(DataError, match="batch size 0"):
        evaluate(Echo(), QUESTIONS, image_root=root, out=tmp_path / "p.jsonl", batch_size=0)


def test_strange_text_survives_the_file(root: Path, tmp_path: Path) -> None:
    class Strange(Echo):
        def answer(self, requests: Sequence[Request]) -> list[str]:
            return ['\ud800 \u2028 \x00 \x85 "nan" \n' for _ in requests]

    one = evaluate(Strange(), QUESTIONS, image_root=root, out=tmp_path / "p.jsonl")
    two = evaluate(Strange(), QUESTIONS, image_root=root, out=tmp_path / "p.jsonl")
    assert one == two


# --- scoring --------------------------------------------------------------------------------------------

SCORED = (
    ask("t1", Task.TRANSCRIPTION, "1.png", "abcd"),
    ask("t2", Task.TRANSCRIPTION, "2.png", "abcdef"),
    ask("v1", Task.VQA, "1.png", "red"),
    ask("v2", Task.VQA, "2.png", "blue"),
    ask("y1", Task.YES_NO, "1.png", "Yes"),
    ask("n1", Task.YES_NO, "1.png", "No"),
    ask("y2", Task.YES_NO, "2.png", "yes"),
    ask("n2", Task.YES_NO, "2.png", "no."),
)


def say(*texts: str) -> list[Prediction]:
    return [Prediction(question=q.id, status=Status.OK, text=t) for q, t in zip(SCORED, texts, strict=True)]


PERFECT = say("abcd", "abcdef", "red", "Blue.", "Yes", "No", "Yes, it does.", "no")
ALWAYS_YES = say("abxx", "", "red", "green", *["yes"] * 4)


def test_each_task_has_its_metric() -> None:
    perfect, poor = summarise(SCORED, PERFECT, "good"), summarise(SCORED, ALWAYS_YES, "poor")
    assert {k: v.value for k, v in perfect.scores.items()} == {
        "transcription_cer": 0,
        "vqa_accuracy": 1,
        "yes_no_score": 200,
    }
    assert poor.scores["transcription_cer"].value == pytest.approx(8 / 10)
    assert poor.scores["vqa_accuracy"].value == 0.5
    assert poor.scores["yes_no_score"].value == 50
    assert (poor.model, poor.n, poor.failed) == ("poor", 8, 0)
    assert poor.scores["vqa_accuracy"].n == 2


def test_failed_and_missing_answers_are_wrong_and_counted() -> None:
    failed = [
        PERFECT[0],
        replace(PERFECT[1], status=Status.FAILED, text="abcdef"),
        *PERFECT[2:5],
        replace(PERFECT[5], status=Status.FAILED, text="no"),
        *PERFECT[6:7],
    ]
    report = summarise(SCORED, failed, "half")
    assert report.failed == 3
    assert report.scores["transcription_cer"].value == pytest.approx(0.6)
    assert report.scores["yes_no_score"].value == 50
    assert "3 of 8 questions have no answer" in report.notes[0]


def test_a_metric_without_questions_is_absent() -> None:
    assert set(summarise(SCORED[2:4], PERFECT[2:4], "m").scores) == {"vqa_accuracy"}


def test_an_interval_without_width_is_remarked_on() -> None:
    assert any("vqa_accuracy" in note for note in summarise(SCORED, PERFECT, "m").notes)
    assert summarise(SCORED[2:4], ALWAYS_YES[2:4], "m").notes == ()


def test_groups_of_yes_no_questions_can_be_named() -> None:
    questions = [replace(q, image="same.png", group=q.id[1]) for q in SCORED[4:]]
    texts = ("yes", "no", "yes", "yes")
    predictions = [
        Prediction(question=q.id, status=Status.OK, text=t) for q, t in zip(questions, texts, strict=True)
    ]
    assert summarise(questions, predictions, "m").scores["yes_no_score"].value == 75 + 50


def test_comparison_is_with_minus_without() -> None:
    result = compare(SCORED, ALWAYS_YES, PERFECT)
    assert result.n == 8
    assert result.comparisons["transcription_cer"].difference == pytest.approx(-0.8)
    assert result.comparisons["vqa_accuracy"].difference == 0.5
    assert result.comparisons["yes_no_score"].difference == 150
    assert result.comparisons["transcription_cer"].p == 0.5


def test_many_questions_give_a_small_p() -> None:
    questions = [ask(str(i), image=f"{i}.png", reference="right") for i in range(100)]
    right, wrong = (
        [Prediction(question=q.id, status=Status.OK, text=text) for q in questions]
        for text in ("right", "wrong")
    )
    comparison = compare(questions, wrong, right).comparisons["vqa_accuracy"]
    assert 0 < comparison.p < 0.001
    assert comparison.n == 100


def test_right_and_wrong() -> None:
    assert [is_right(q, p) for q, p in zip(SCORED, PERFECT, strict=True)] == [True] * 8
    assert [is_right(q, p) for q, p in zip(SCORED, ALWAYS_YES, strict=True)] == [
        False, False, True, False, True, False, True, False,
    ]  # fmt: skip
    assert not any(is_right(q, None) for q in SCORED)


@pytest.mark.parametrize("references", [(), ("maybe",), ("yes", "no")])
def test_a_yes_no_question_needs_a_clear_reference(references: tuple[str, ...]) -> None:
    question = replace(SCORED[4], references=references)
    with pytest.raises(DataError, match="y1"):
        summarise([question], [PERFECT[4]], "m")


def test_predictions_of_other_questions_are_refused() -> None:
    with pytest.raises(DataError, match="'t2'"):
        summarise(SCORED[:1], PERFECT[:2], "m")
