"""Asking a scripted judge: what is kept, what is asked again, and what it all sums up to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llavar.errors import BudgetError, ConfigError, DataError, FetchError, NotFoundError
from llavar.evals.judge import Case, ReviewStatus, Rule, Settings, answer_all, judge, read_reviews, summarise
from llavar.evals.judge.files import Answer, Asked, read_rows
from llavar.evals.judge.log import Log
from llavar.evals.judge.prompt import SYSTEM, Context
from llavar.llm import Budget, Cache, Client, Endpoint

RULES = {"default": Rule(prompt="Rate."), "read": Rule(prompt="Rate the reading.")}
ONE = Settings(workers=1)


def cases(n: int = 3, category: str = "conv") -> list[Case]:
    return [
        Case(
            question=Asked(id=i, text=f"Q{i}?", category=category, context=Context(captions=(f"c{i}",))),
            reference=Answer(id=i, text=f"reference {i}"),
            answer=Answer(id=f"a{i}", text=f"model {i}"),
        )
        for i in range(n)
    ]


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    """Makes clients of a server and closes them."""
    with ExitStack() as stack:

        def make(server: Any, model: str = "judge", **options: Any) -> Client:
            endpoint = Endpoint(base_url=server.url, model=model, attempts=2)
            return stack.enter_context(Client(endpoint, pause=lambda _: None, **options))

        yield make


def rows(path: Path) -> list[dict[str, Any]]:
    return [dict(row) for row, _ in read_rows(path)]


def test_a_review_says_everything_about_itself(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    server, out = (
        fake_endpoint.serve([fake_endpoint.say("8 6.5\nbecause\ud83d")]),
        tmp_path / "new/reviews.jsonl",
    )
    done = judge(cases(1, "read"), client(server), RULES, out=out)
    assert (done.asked, done.kept, done.failed) == (1, 0, 0)
    (row,) = rows(out)
    assert row["question_id"] == 0
    assert (row["answer1_id"], row["answer2_id"], row["category"], row["rule"]) == (0, "a0", "read", "read")
    assert (row["content"], row["tuple"], row["status"]) == ("8 6.5\nbecause\ufffd", [8.0, 6.5], "ok")
    assert (row["asked"], row["model"], row["finish"]) == ("judge", "scripted-1", "stop")
    assert (row["order"], row["temperature"], row["error"]) == ("reference-first", 0.2, "")
    assert row["date"].endswith("+00:00")
    assert len(row["key"]) == 24
    sent = server.requests[0].body
    assert (sent["temperature"], sent["max_tokens"], sent["messages"][0]["content"]) == (0.2, 1024, SYSTEM)
    assert "[Assistant 1]\nreference 0\n" in server.requests[0].text
    assert "Rate the reading." in server.requests[0].text


def test_a_category_without_a_rule_takes_the_default(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    server, out = fake_endpoint.serve([fake_endpoint.say("8 9")]), tmp_path / "r.jsonl"
    judge(cases(1), client(server), RULES, out=out)
    assert rows(out)[0]["rule"] == "default"
    with pytest.raises(DataError, match="no rule"):
        judge(cases(1), client(server), {}, out=tmp_path / "other.jsonl")


def test_nothing_is_asked_twice(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    server, out = fake_endpoint.serve([fake_endpoint.say("8 9")]), tmp_path / "r.jsonl"
    shown: list[tuple[int, int]] = []
    judge(cases(2), client(server), RULES, out=out)
    done = judge(cases(3), client(server), RULES, out=out, progress=lambda *n: shown.append(n))
    assert (done.asked, done.kept, len(server.requests)) == (1, 2, 3)
    assert shown == [(2, 3), (3, 3)]


def test_both_orders_are_swapped_back_and_averaged(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    # Whoever stands first gets 8, the other 6: all of it is position.
    server, out = fake_endpoint.serve([fake_endpoint.say("8 6")]), tmp_path / "r.jsonl"
    judge(cases(2), client(server), RULES, out=out)
    judge(cases(2), client(server), RULES, out=out, settings=Settings(both_orders=True))
    assert len(server.requests) == 4
    swapped = [asked.text for asked in server.requests if "[Assistant 1]\nmodel" in asked.text]
    assert len(swapped) == 2
    assert sorted(tuple(row["tuple"]) for row in rows(out)) == [(6, 8), (6, 8), (8, 6), (8, 6)]
    total = summarise(read_reviews(out))["all"]
    assert (total.n, total.failed, total.reference, total.model, total.relative) == (2, 0, 7.0, 7.0, 100.0)
    assert total.advantage == 2.0
    assert total.document()["advantage_of_first"] == 2.0


def test_one_order_that_fails_fails_the_question(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    def script(asked: Any) -> Any:
        return fake_endpoint.say("no idea" if "[Assistant 1]\nmodel 0" in asked.text else "8 6")

    out = tmp_path / "r.jsonl"
    judge(cases(2), client(fake_endpoint.serve(script)), RULES, out=out, settings=Settings(both_orders=True))
    total = summarise(read_reviews(out))["all"]
    assert (total.n, total.failed, total.reference, total.model) == (2, 1, 7.0, 7.0)


def test_failures_are_recorded_reported_and_tried_again(
    fake_endpoint: Any, client: Any, tmp_path: Path
) -> None:
    out = tmp_path / "r.jsonl"
    script = [
        fake_endpoint.refuse(400, "too long"),
        fake_endpoint.say("I would rather not"),
        fake_endpoint.say("8 4"),
        fake_endpoint.say("6 3"),
    ]
    server = fake_endpoint.serve(script)
    done = judge(cases(3), client(server), RULES, out=out, settings=ONE)
    assert (done.asked, done.failed) == (3, 2)
    assert "two scores" in done.error
    failed, unparsed, good = read_reviews(out)
    assert (failed.status, failed.scores, failed.content) == (ReviewStatus.FAILED, None, "")
    assert "too long" in failed.error
    assert (unparsed.status, unparsed.content) == (ReviewStatus.UNPARSED, "I would rather not")
    assert good.scores == (8.0, 4.0)
    first = summarise(read_reviews(out))["conv"]
    assert (first.n, first.failed, first.reference, first.model, first.relative) == (3, 2, 8.0, 4.0, 50.0)
    assert summarise(read_reviews(out), compatible=True)["conv"].reference == 2.0  # (8 - 1 - 1) / 3

    done = judge(cases(3), client(server), RULES, out=out, settings=ONE)
    assert (done.asked, done.kept, done.failed) == (2, 1, 0)
    total = summarise(read_reviews(out))["all"]
    assert (total.n, total.failed, total.reference, total.model) == (3, 0, 6.667, 3.333)


def test_a_cached_reply_without_scores_is_not_taken_again(
    fake_endpoint: Any, client: Any, tmp_path: Path
) -> None:
    server = fake_endpoint.serve([fake_endpoint.say("hm"), fake_endpoint.say("8 9")])
    out, cache = tmp_path / "r.jsonl", Cache(tmp_path / "cache.jsonl")
    assert judge(cases(1), client(server, cache=cache), RULES, out=out).failed == 1
    assert judge(cases(1), client(server, cache=cache), RULES, out=out).failed == 0
    # Another file of reviews gets the good reply from the cache.
    other = judge(
        cases(1), client(server, cache=cache, budget=Budget(max_requests=0)), RULES, out=tmp_path / "o"
    )
    assert other.failed == 0
    assert len(server.requests) == 2


@pytest.mark.parametrize("reply", ["8, 9", "80 90", "nan 5", "-1 -1"])
def test_strict_and_tolerant(fake_endpoint: Any, client: Any, tmp_path: Path, reply: str) -> None:
    server = fake_endpoint.serve([fake_endpoint.say(reply)])
    failed = [
        judge(
            cases(1), client(server), RULES, out=tmp_path / f"{strict}", settings=Settings(strict=strict)
        ).failed
        for strict in (True, False)
    ]
    assert failed == ([1, 0] if reply == "8, 9" else [1, 1])


def test_a_spent_budget_loses_nothing(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    server, out = fake_endpoint.serve([fake_endpoint.say("8 9")]), tmp_path / "r.jsonl"
    with pytest.raises(BudgetError, match="budget of 4 requests"):
        judge(cases(9), client(server, budget=Budget(max_requests=4)), RULES, out=out)
    assert len(rows(out)) == 4
    assert judge(cases(9), client(server), RULES, out=out).asked == 5
    assert len(server.requests) == 9


def test_a_dead_endpoint_is_given_up(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    server = fake_endpoint.serve([fake_endpoint.refuse(401, "who are you")])
    with pytest.raises(FetchError, match="first 10 requests all failed.*who are you"):
        judge(cases(100), client(server), RULES, out=tmp_path / "r.jsonl", settings=ONE)
    assert len(server.requests) < 100


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_file_torn_by_a_crash_goes_on(fake_endpoint: Any, client: Any, tmp_path: Path, cut: int) -> None:
    server, out = fake_endpoint.serve([fake_endpoint.say("8 9")]), tmp_path / "r.jsonl"
    judge(cases(3), client(server), RULES, out=out, settings=ONE)
    out.write_bytes(out.read_bytes()[:-cut])
    assert len(read_reviews(out)) == (3 if cut == 1 else 2)
    done = judge(cases(3), client(server), RULES, out=out)
    assert done.kept == (3 if cut == 1 else 2)
    assert [review.scores for review in read_reviews(out)] == [(8, 9)] * 3
    assert len(rows(out)) == 3


def test_a_first_line_torn_by_a_crash_goes_on(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    server, out = fake_endpoint.serve([fake_endpoint.say("8 9")]), tmp_path / "r.jsonl"
    out.write_text('{"question_id": 0, "answ')
    assert judge(cases(1), client(server), RULES, out=out).asked == 1
    assert len(rows(out)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "other"}, "reviews by 'judge', not 'other'"),
        ({"rules": {"default": Rule(prompt="Rate otherwise.")}}, "question . with another answer"),
        ({"settings": Settings(temperature=1.0)}, "question . with another answer"),
    ],
)
def test_a_file_of_other_reviews_is_left_alone(
    fake_endpoint: Any, client: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    server, out = fake_endpoint.serve([fake_endpoint.say("8 9")]), tmp_path / "r.jsonl"
    judge(cases(2), client(server), RULES, out=out)
    before = out.read_bytes()
    with pytest.raises(DataError, match=message):
        judge(
            cases(2),
            client(server, change.get("model", "judge")),
            change.get("rules", RULES),
            out=out,
            settings=change.get("settings", Settings()),
        )
    assert out.read_bytes() == before


def test_a_file_of_another_tool_is_left_alone(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    server, out = fake_endpoint.serve([fake_endpoint.say("8 9")]), tmp_path / "r.jsonl"
    out.write_text('{"question_id": 0, "category": "conv", "content": "8 9", "tuple": [8, 9]}\n')
    with pytest.raises(DataError, match="written by another tool"):
        judge(cases(1), client(server), RULES, out=out)
    with pytest.raises(NotFoundError, match="folder"):
        judge(cases(1), client(server), RULES, out=tmp_path)
    assert server.requests == []


def test_settings_that_cannot_work() -> None:
    for options in ({"temperature": -1}, {"temperature": float("nan")}, {"max_tokens": 0}, {"workers": 0}):
        with pytest.raises(ConfigError):
            Settings(**options)


def test_a_log_takes_lines_from_a_file_without_a_last_break(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"a": 1}')
    with Log(path) as log:
        log.append({"b": "\n\ud800"})
    log.append({"too": "late"})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"b": "\n\ud800"}]


# --- reference answers ----------------------------------------------------------------------------------


def questions(n: int = 2) -> list[Asked]:
    return [case.question for case in cases(n)]


def test_reference_answers_come_from_the_context(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    server, out = (
        fake_endpoint.serve(lambda asked: fake_endpoint.say(f"<{asked.text}>")),
        tmp_path / "a.jsonl",
    )
    done = answer_all(questions(), client(server), out=out)
    assert (done.asked, done.failed) == (2, 0)
    row = next(row for row in rows(out) if row["question_id"] == 0)
    assert row["text"] == "<[Context]\nc0\n\n[Question]\nQ0?>"
    assert (row["category"], row["model_id"], row["metadata"]["asked"]) == ("conv", "scripted-1", "judge")
    assert row["answer_id"] == row["metadata"]["key"]
    assert answer_all(questions(3), client(server), out=out).kept == 2
    assert len(server.requests) == 3


def test_answers_that_fail_leave_no_row(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    script = [fake_endpoint.say(" "), fake_endpoint.refuse(400, "no"), fake_endpoint.say("an answer")]
    server, out, cache = fake_endpoint.serve(script), tmp_path / "a.jsonl", Cache(tmp_path / "cache")
    done = answer_all(questions(), client(server, cache=cache), out=out, workers=1)
    assert (done.asked, done.failed) == (2, 2)
    assert "no" in done.error
    assert rows(out) == []
    done = answer_all(questions(), client(server, cache=cache), out=out, workers=1)
    assert (done.error, done.failed, [row["text"] for row in rows(out)]) == ("", 0, ["an answer"] * 2)


def test_answers_of_another_model_are_left_alone(fake_endpoint: Any, client: Any, tmp_path: Path) -> None:
    server, out = fake_endpoint.serve([fake_endpoint.say("x")]), tmp_path / "a.jsonl"
    answer_all(questions(), client(server), out=out)
    with pytest.raises(DataError, match="name another file with --out"):
        answer_all(questions(), client(server, "other"), out=out)
    with pytest.raises(BudgetError):
        answer_all(questions(4), client(server, budget=Budget(max_requests=1)), out=out)
    assert len(rows(out)) == 3
    dead = fake_endpoint.serve([fake_endpoint.refuse(403, "no")])
    with pytest.raises(FetchError, match="first 10 requests all failed"):
        answer_all(questions(30), client(dead), out=tmp_path / "dead.jsonl", workers=1)
