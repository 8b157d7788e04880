"""Looking at a model in training: what is seen, when, and that training does not notice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llavar.errors import DataError
from llavar.train import look, metrics
from llavar.train.config import LoopConfig, PartConfig, Precision
from llavar.train.look import Look, Looks, Sample, Watched, undisturbed
from llavar.train.loop import fit, summed_loss
from llavar.train.parallel import Replicated
from llavar.train.world import World

Make = Callable[..., Any]
PARTS = {"body": PartConfig(lr=0.01), "head": PartConfig(lr=0.03)}


def config(**changes: Any) -> LoopConfig:
    return LoopConfig(**({"steps": 8, "parts": PARTS, "log_every": 1, "save_every": 4} | changes))


def module(toy: Any) -> torch.nn.Module:
    return torch.nn.ModuleList([toy.body, toy.drop, toy.head])


def sample(answer: str) -> Sample:
    return Sample(id="q", image="a.png", question="Read.", references=("AB",), answer=answer, score=0.5)


class Seen:
    """Looks at a toy; counts how often, and disturbs whatever can be disturbed."""

    def __init__(self, toy: Any, out: Path, *, every: int = 3, watch_every: int = 4, steps: int = 8) -> None:
        self.toy, self.calls = toy, 0
        self.told: list[tuple[Look, Watched | None]] = []
        self.looks = Looks(
            out,
            model=module(toy),
            steps=steps,
            validate=self.validate,
            validate_every=every,
            watch=self.watch,
            watch_every=watch_every,
            on_look=lambda found, watched: self.told.append((found, watched)),
        )

    def validate(self) -> tuple[float, int]:
        torch.rand(5)
        assert not self.toy.drop.training
        return summed_loss(self.toy, 2, Precision.FP32)

    def watch(self) -> Watched:
        torch.manual_seed(3)
        self.calls += 1
        return Watched(metric="anls", score=0.5, samples=(sample(f"answer {self.calls}"), sample("\u2028")))


def state(toy: Any, out: Path) -> tuple[Any, ...]:
    log = [(t.step, t.loss, t.grad_norm) for t in metrics.read(out / "metrics.jsonl")]
    return log, {name: tensor.tolist() for name, tensor in toy.state().items()}


def entries(path: Path) -> list[dict[str, Any]]:
    return look.read(path)


def test_training_does_not_notice_that_it_is_looked_at(toy: Make, tmp_path: Path):
    plain, watched = toy(), toy()
    fit(plain, config(), tmp_path / "plain")
    fit(watched, config(), tmp_path / "watched", looks=Seen(watched, tmp_path / "watched").looks)
    assert state(plain, tmp_path / "plain") == state(watched, tmp_path / "watched")


def test_what_is_seen_at_the_start_when_due_and_at_the_end(toy: Make, tmp_path: Path):
    objective = toy()
    seen = Seen(objective, tmp_path)
    fit(objective, config(), tmp_path, looks=seen.looks)
    log = entries(tmp_path / "validation.jsonl")
    assert [entry["step"] for entry in log] == [0, 3, 4, 6, 8]
    assert [entry["step"] for entry in log if entry["loss"] is not None] == [0, 3, 6, 8]
    assert [entry["step"] for entry in log if entry["score"] is not None] == [0, 4, 8]
    assert log[0]["loss"] > log[-1]["loss"]
    assert {entry["supervised"] for entry in log if entry["loss"] is not None} == {10}
    answers = entries(tmp_path / "samples.jsonl")
    assert [(entry["step"], entry["answer"]) for entry in answers] == [
        *((0, "answer 1"), (0, "\u2028"), (4, "answer 2"), (4, "\u2028"), (8, "answer 3"), (8, "\u2028"))
    ]
    assert [(found.step, watched is not None) for found, watched in seen.told] == [
        *((0, True), (3, False), (4, True), (6, False), (8, True))
    ]


def test_the_loss_is_that_of_a_plain_mean_without_dropout(toy: Make, tmp_path: Path):
    objective, by_hand = toy(), toy()
    fit(objective, config(steps=1), tmp_path, looks=Seen(objective, tmp_path, every=9, steps=1).looks)
    by_hand.drop.p = 0.0
    total = sum(by_hand.loss(batch).item() for step in range(2) for batch in by_hand.batches(step))
    first = entries(tmp_path / "validation.jsonl")[0]
    assert first["loss"] == pytest.approx(total / 10, rel=1e-6)
    assert objective.body.training


@pytest.mark.parametrize("step", [0, 2, 3, 4, 5, 7])
def test_a_run_that_was_stopped_has_every_look_once(step: int, toy: Make, tmp_path: Path):
    straight, stopped, again = toy(), toy(), toy()
    fit(straight, config(), tmp_path / "straight", looks=Seen(straight, tmp_path / "straight").looks)

    def hurt(*now: int) -> None:
        if now == (step, 1):
            raise KeyboardInterrupt

    first = Seen(stopped, tmp_path / "out")
    stopped.hurt = hurt
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, config(), tmp_path / "out", looks=first.looks)
    second = Seen(again, tmp_path / "out")
    second.calls = first.calls
    fit(again, config(), tmp_path / "out", looks=second.looks)
    for name in ("validation.jsonl", "samples.jsonl"):
        one, other = (
            [{**e, "seconds": 0} for e in entries(tmp_path / run / name)] for run in ("straight", "out")
        )
        assert one == other


def test_an_interrupt_while_looking_costs_neither_the_step_nor_the_look(toy: Make, tmp_path: Path):
    stopped, again = toy(), toy()
    broken = Seen(stopped, tmp_path)
    answer = broken.watch

    def struck() -> Watched:
        if broken.calls == 1:
            raise KeyboardInterrupt
        return answer()

    broken.looks._watch = struck
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, config(), tmp_path, looks=broken.looks)
    assert stopped.drop.training
    # A kill between the answers and the line that says that the look was made.
    with (tmp_path / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 4, "answer": "half"}) + '\n{"step": 4, "ans')
    fitted = fit(again, config(), tmp_path, looks=Seen(again, tmp_path).looks)
    assert fitted.resumed_at == 4
    assert [entry["step"] for entry in entries(tmp_path / "validation.jsonl")] == [0, 3, 4, 6, 8]
    assert [entry["step"] for entry in entries(tmp_path / "samples.jsonl")] == [0, 0, 4, 4, 8, 8]
    assert "half" not in (tmp_path / "samples.jsonl").read_text(encoding="utf-8")


def test_a_finished_run_is_not_looked_at_again(toy: Make, tmp_path: Path):
    objective = toy()
    fit(objective, config(), tmp_path, looks=Seen(objective, tmp_path).looks)
    before = (tmp_path / "validation.jsonl").read_text()
    again = toy()
    seen = Seen(again, tmp_path)
    fit(again, config(), tmp_path, looks=seen.looks)
    assert (tmp_path / "validation.jsonl").read_text() == before
    assert seen.told == []


def test_nothing_is_due_where_nothing_is_asked_for(toy: Make, tmp_path: Path):
    looks = Looks(tmp_path, model=module(toy()), steps=8, validate_every=1, watch_every=1)
    alone = Replicated(World())
    assert looks.begin(0, alone) == looks.look(1, alone) == 0.0
    assert list(tmp_path.iterdir()) == []


def test_modes_and_random_numbers_come_back_even_after_an_error():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
    model.train(True)
    model[1].eval()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    def fail() -> None:
        with undisturbed(model):
            assert not any(part.training for part in model.modules())
            assert not torch.is_grad_enabled()
            torch.manual_seed(8)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert [part.training for part in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()
    assert torch.equal(torch.rand(1), expected)


def test_a_bad_line_in_the_middle_of_the_log_is_an_error(tmp_path: Path):
    path = tmp_path / "validation.jsonl"
    path.write_text('{"step": 1}\noops\n{"step": 2}\n')
    with pytest.raises(DataError, match="line 2 of .*validation.jsonl is no entry of a look"):
        look.read(path)
    path.write_text('{"step": 1}\n{"step": 2}\n[1]\n')
    assert [entry["step"] for entry in look.read(path)] == [1, 2]
    assert look.rewind(path, 1) == 1
    assert path.read_text() == '{"step": 1}\n'
    assert look.rewind(path, 0) == -1
