"""A run that was stopped, anywhere and in any way, ends bit by bit like one that was not."""

from __future__ import annotations

import math
import shutil
import signal
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llavar.errors import ConfigError
from llavar.train import checkpoint, loop, memory, metrics
from llavar.train.config import LoopConfig, Mean, PartConfig, Precision
from llavar.train.loop import Fitted, Rehearsed, fingerprint, fit, rehearse
from llavar.train.metrics import Size
from llavar.train.parallel import Replicated
from llavar.train.world import World

Make = Callable[..., Any]
PARTS = {"body": PartConfig(lr=0.01), "head": PartConfig(lr=0.03, weight_decay=0.1)}


def config(**changes: Any) -> LoopConfig:
    settled = {"steps": 12, "parts": PARTS, "log_every": 5, "save_every": 4, "warmup": 0.1}
    return LoopConfig(**(settled | changes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that has to be equal."""

    weights: dict[str, Tensor]
    saved: checkpoint.Checkpoint
    log: list[tuple[int, float, float, float]]


def outcome(objective: Any, out: Path) -> Outcome:
    saved = checkpoint.newest(out / "checkpoints")
    assert saved is not None
    log = [(t.step, t.loss, t.lr, t.grad_norm) for t in metrics.read(out / "metrics.jsonl")]
    return Outcome(weights=objective.state(), saved=saved, log=log)


def assert_equal(one: Outcome, other: Outcome) -> None:
    assert one.log == other.log
    assert one.saved.step == other.saved.step
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())
    first, second = one.saved.optimizer["state"], other.saved.optimizer["state"]
    assert first.keys() == second.keys()
    for index, moments in first.items():
        assert all(torch.equal(tensor, second[index][name]) for name, tensor in moments.items())
    assert one.saved.optimizer["param_groups"] == other.saved.optimizer["param_groups"]


@pytest.fixture
def whole(toy: Make, tmp_path: Path) -> Outcome:
    """What a run gives that nobody stops."""
    objective = toy()
    fit(objective, config(), tmp_path / "whole")
    return outcome(objective, tmp_path / "whole")


def interrupt_at(*at: int) -> Callable[..., None]:
    def hurt(*now: int) -> None:
        if now == at:
            raise KeyboardInterrupt

    return hurt


def on_tick_5(tick: metrics.Tick) -> None:
    if tick.step == 5:
        raise KeyboardInterrupt


STOPS = {
    "in the callback of an entry": (None, {"on_tick": on_tick_5}, 5),
    "in the callback of a checkpoint": (None, {"on_save": interrupt_at(8)}, 8),
    "in the first loss of a step": (interrupt_at(6, 0), {}, 6),
    "in the second loss of a step": (interrupt_at(7, 1), {}, 7),
    "in the second loss of all": (interrupt_at(0, 1), {}, 0),
    "in the last step": (interrupt_at(11, 1), {}, 11),
}


@pytest.mark.parametrize("fresh", [True, False], ids=["new process", "same objects"])
@pytest.mark.parametrize("stop", STOPS)
def test_an_interrupted_run_goes_on_bit_identically(
    stop: str, fresh: bool, whole: Outcome, toy: Make, tmp_path: Path
):
    hurt, callbacks, done = STOPS[stop]
    stopped = toy(hurt)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, config(), tmp_path / "out", **callbacks)
    objective = toy() if fresh else stopped
    objective.hurt, objective.asked = None, []
    fitted = fit(objective, config(), tmp_path / "out")
    assert (fitted.resumed_at, fitted.steps) == (done, 12)
    assert objective.asked == list(range(done, 12))
    assert_equal(outcome(objective, tmp_path / "out"), whole)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_run_may_be_interrupted_again_and_again(times: int, whole: Outcome, toy: Make, tmp_path: Path):
    for step in range(2, 2 + 2 * times, 2):
        with pytest.raises(KeyboardInterrupt):
            fit(toy(interrupt_at(step, 1)), config(), tmp_path / "out")
    objective = toy()
    fit(objective, config(), tmp_path / "out")
    assert_equal(outcome(objective, tmp_path / "out"), whole)


def test_reduced_precision_goes_on_bit_identically(toy: Make, whole: Outcome, tmp_path: Path):
    reduced = config(precision=Precision.BF16)
    straight, stopped, again = toy(), toy(interrupt_at(6, 1)), toy()
    fit(straight, reduced, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, reduced, tmp_path / "out")
    fit(again, reduced, tmp_path / "out")
    expected = outcome(straight, tmp_path / "straight")
    assert_equal(outcome(again, tmp_path / "out"), expected)
    assert all(tensor.dtype is torch.float32 for tensor in expected.weights.values())
    assert not torch.equal(expected.weights["body/weight"], whole.weights["body/weight"])


@pytest.fixture
def sigterm() -> Generator[None]:
    """A signal that a program has turned into an exception, as a batch system's warning is."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(number)

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_in_the_middle_of_an_update_waits_for_its_end(
    number: signal.Signals,
    error: type[BaseException],
    sigterm: None,
    whole: Outcome,
    toy: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    update, count = torch.optim.AdamW.step, iter(range(12))

    def struck(self: torch.optim.AdamW) -> object:
        if next(count) == 6:
            signal.raise_signal(number)
        return update(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", struck)
    stopped, objective = toy(), toy()
    with pytest.raises(error):
        fit(stopped, config(), tmp_path / "out")
    monkeypatch.undo()
    assert fit(objective, config(), tmp_path / "out").resumed_at == 7
    assert_equal(outcome(objective, tmp_path / "out"), whole)


def test_an_error_in_the_middle_of_an_update_goes_back_to_the_last_checkpoint(
    whole: Outcome, toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    count, update = iter(range(12)), torch.optim.AdamW.step
    stopped, objective = toy(), toy()

    def half(self: torch.optim.AdamW) -> object:
        if next(count) == 6:
            with torch.no_grad():
                stopped.body.weight.zero_()
            raise RuntimeError("out of memory")
        return update(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", half)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(stopped, config(), tmp_path / "out")
    monkeypatch.undo()
    assert fit(objective, config(), tmp_path / "out").resumed_at == 4
    assert_equal(outcome(objective, tmp_path / "out"), whole)


def test_an_interrupt_while_a_checkpoint_is_written_loses_nothing(
    whole: Outcome, toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write, calls = torch.save, iter(range(9))

    def struck(state: object, file: Any) -> None:
        write(state, file)
        if next(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", struck)
    with pytest.raises(KeyboardInterrupt):
        fit(toy(), config(), tmp_path / "out")
    objective = toy()
    assert fit(objective, config(), tmp_path / "out").resumed_at == 8
    assert_equal(outcome(objective, tmp_path / "out"), whole)


def killed_at(step: int, out: Path) -> Callable[[metrics.Tick], None]:
    """Keeps the folder as a kill would leave it at ``step``: nothing more is written there."""

    def keep(tick: metrics.Tick) -> None:
        if tick.step == step:
            shutil.copytree(out, out.with_name("killed"))

    return keep


@pytest.mark.parametrize("step", [3, 7, 11])
def test_a_killed_run_goes_on_from_its_last_checkpoint(step: int, toy: Make, tmp_path: Path):
    often = config(log_every=1)
    straight, objective = toy(), toy()
    fit(straight, often, tmp_path / "whole", on_tick=killed_at(step, tmp_path / "whole"))
    assert fit(objective, often, tmp_path / "killed").resumed_at == step // 4 * 4
    assert_equal(outcome(objective, tmp_path / "killed"), outcome(straight, tmp_path / "whole"))


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(
    keep: int, whole: Outcome, toy: Make, tmp_path: Path
):
    with pytest.raises(KeyboardInterrupt):
        fit(toy(interrupt_at(10, 0)), config(), tmp_path / "out")
    newest = tmp_path / "out" / "checkpoints" / "step-00000010.pt"
    newest.write_bytes(newest.read_bytes()[:keep])
    with (tmp_path / "out" / "metrics.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 1')
    objective = toy()
    assert fit(objective, config(), tmp_path / "out").resumed_at == 8
    assert_equal(outcome(objective, tmp_path / "out"), whole)


def test_what_was_drawn_before_a_step_does_not_matter(whole: Outcome, toy: Make, tmp_path: Path):
    objective = toy()
    fit(objective, config(), tmp_path / "out", on_save=lambda _: torch.rand(7).sum().item() and None)
    assert_equal(outcome(objective, tmp_path / "out"), whole)
    other = toy()
    fit(other, config(seed=1), tmp_path / "other")
    assert not torch.equal(other.body.weight, objective.body.weight)


def test_every_step_draws_something_else(toy: Make, tmp_path: Path):
    drawn: list[float] = []
    fit(toy(lambda *at: drawn.append(torch.rand(()).item())), config(), tmp_path)
    assert len(set(drawn)) == len(drawn) == 24


def test_a_run_works_in_another_thread(whole: Outcome, toy: Make, tmp_path: Path):
    objective = toy()
    thread = threading.Thread(target=fit, args=(objective, config(), tmp_path / "out"))
    thread.start()
    thread.join()
    assert_equal(outcome(objective, tmp_path / "out"), whole)


@pytest.mark.parametrize("change", [{"steps": 20}, {"seed": 1}, {"clip": 0.5}, {"tags": {"rows": "b"}}])
def test_other_settings_in_the_same_folder_are_an_error(change: dict[str, Any], toy: Make, tmp_path: Path):
    fit(toy(), config(), tmp_path)
    before = sorted(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(ConfigError, match="holds a run with other settings .*; use another --out"):
        fit(toy(), config(**change), tmp_path)
    assert sorted(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()) == before


def test_the_fingerprint_is_of_every_setting():
    changes: list[dict[str, Any]] = [
        {},
        {"steps": 13},
        {"parts": {"body": PartConfig(lr=0.01)}},
        {"parts": {**PARTS, "head": PartConfig(lr=0.03)}},
        {"mean": Mean.BATCH},
        {"precision": Precision.BF16},
        {"tags": {"rows": "a"}},
    ]
    assert len({fingerprint(config(**change)) for change in changes}) == len(changes)
    assert fingerprint(config()) == fingerprint(config())


def test_a_finished_run_is_not_done_again(whole: Outcome, toy: Make, tmp_path: Path):
    first = fit(toy(), config(), tmp_path / "out")
    objective = toy()
    again = fit(objective, config(), tmp_path / "out")
    assert (again.resumed_at, again.steps, again.ticks) == (12, 12, first.ticks)
    assert objective.asked == []
    assert_equal(outcome(objective, tmp_path / "out"), whole)


def test_entries_and_checkpoints_come_when_they_are_due(toy: Make, tmp_path: Path):
    ticks: list[metrics.Tick] = []
    saves: list[int] = []
    fitted = fit(toy(), config(steps=11), tmp_path, on_tick=ticks.append, on_save=saves.append)
    assert [tick.step for tick in ticks] == [5, 10, 11]
    assert fitted.ticks == tuple(ticks) == tuple(metrics.read(tmp_path / "metrics.jsonl"))
    assert ticks[-1].left == 0
    assert saves == [4, 8]
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000008.pt", "step-00000011.pt"]
    assert isinstance(fitted, Fitted)
    assert fitted.seconds >= ticks[-1].seconds


def test_the_logged_rate_is_that_of_the_fastest_part(toy: Make, tmp_path: Path):
    ticks = fit(toy(), config(log_every=1, warmup=0.25), tmp_path).ticks
    assert [tick.lr for tick in ticks[:4]] == pytest.approx([0.01, 0.02, 0.03, 0.03])
    assert ticks[-1].lr < 0.002


def test_the_loss_goes_down(toy: Make, tmp_path: Path):
    objective = toy()
    objective.drop.p = 0.0
    ticks = fit(objective, config(steps=200, log_every=50, save_every=200), tmp_path).ticks
    assert ticks[-1].loss < 0.2 * ticks[0].loss


def test_only_the_configured_parts_change(toy: Make, tmp_path: Path):
    objective = toy()
    before = objective.state()
    fit(objective, config(parts={"head": PartConfig(lr=0.01)}), tmp_path)
    changed = {name for name, tensor in objective.state().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head/weight", "head/bias"}
    assert not any(p.requires_grad for p in (*objective.body.parameters(), *objective.spare.parameters()))
    assert all(p.grad is None for p in objective.body.parameters())
    saved = checkpoint.newest(tmp_path / "checkpoints")
    assert saved is not None
    assert saved.weights.keys() == changed


def test_a_part_that_does_not_exist_is_an_error(toy: Make, tmp_path: Path):
    with pytest.raises(ConfigError, match="no part 'tail' to train; it has body, head, spare"):
        fit(toy(), config(parts={"tail": PartConfig(lr=0.01)}), tmp_path)


def test_each_part_moves_at_its_own_rate(toy: Make, tmp_path: Path):
    # The first step of Adam has the length of the learning rate wherever there is a gradient.
    objective = toy()
    before = objective.state()
    parts = {"body": PartConfig(lr=0.001), "head": PartConfig(lr=0.02)}
    fit(objective, config(steps=1, parts=parts), tmp_path)
    after = objective.state()
    for name, lr in (("body/weight", 0.001), ("head/weight", 0.02)):
        assert (after[name] - before[name]).abs().max().item() == pytest.approx(lr, rel=1e-2)


@pytest.mark.parametrize("mean", Mean)
def test_the_step_is_a_mean_over_tokens_or_over_batches(mean: Mean, toy: Make, tmp_path: Path):
    objective, by_hand = toy(), toy()
    objective.drop.p = by_hand.drop.p = 0.0
    four, one = (by_hand.loss(batch) for batch in by_hand.batches(0))
    total = (four + one) / 5 if mean is Mean.TOKEN else (four / 4 + one) / 2
    total.backward()
    gradients = [p.grad for module in (by_hand.body, by_hand.head) for p in module.parameters()]
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    tick = fit(objective, config(steps=1, mean=mean, clip=0.0), tmp_path).ticks[0]
    assert tick.grad_norm == pytest.approx(norm, rel=1e-6)
    # What is logged is the mean over tokens in both cases, so that runs can be compared.
    assert tick.loss == pytest.approx((four + one).item() / 5, rel=1e-6)


@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_gradients_are_shortened_to_the_clip(
    clip: float, toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    norms: list[float] = []
    update = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW) -> object:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        return update(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    ticks = fit(toy(), config(steps=3, log_every=1, clip=clip), tmp_path).ticks
    before = [tick.grad_norm for tick in ticks]
    assert min(before) > 0.01
    assert norms == pytest.approx([0.01] * 3 if clip else before, rel=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_with_what_was_good(value: float, toy: Make, tmp_path: Path):
    objective = toy()
    fine = objective.loss
    objective.loss = lambda batch: fine(batch) * (value if objective.asked[-1] == 6 else 1)
    with pytest.raises(ConfigError, match=f"the loss is {value} at step 6; lower the learning rate"):
        fit(objective, config(), tmp_path)
    saved = checkpoint.newest(tmp_path / "checkpoints")
    assert saved is not None
    assert saved.step == 6
    assert all(tensor.isfinite().all() for tensor in saved.weights.values())


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(toy: Make, tmp_path: Path):
    objective = toy()
    fine = objective.loss

    def steep(batch: Any) -> Tensor:
        return fine(batch) + (objective.head.weight.sum() * 0).sqrt()

    objective.loss = steep
    before = objective.state()
    with pytest.raises(ConfigError, match="the gradient's norm is nan at step 0"):
        fit(objective, config(), tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state().items())
    assert checkpoint.newest(tmp_path / "checkpoints") is None


def test_a_step_without_supervised_tokens_is_an_error(toy: Make, tmp_path: Path):
    objective = toy()
    objective.size = lambda batch: Size(samples=4, tokens=12, supervised=0)
    with pytest.raises(ConfigError, match="step 0 has no supervised token; look at the rows"):
        fit(objective, config(), tmp_path)


@pytest.mark.parametrize("mean", Mean)
def test_a_micro_batch_that_says_nothing_to_the_trained_parts_counts_but_teaches_nothing(
    mean: Mean, toy: Make, tmp_path: Path
):
    objective = toy()
    fine = objective.loss
    objective.loss = lambda batch: fine(batch) if batch.supervised > 1 else torch.tensor(3.0)
    ticks = fit(objective, config(steps=2, mean=mean, log_every=1), tmp_path).ticks
    assert all(math.isfinite(tick.loss) and tick.grad_norm > 0 for tick in ticks)


# --- the dry run ------------------------------------------------------------------------------------------


def tried(objective: Any, **given: Any) -> Rehearsed:
    steps = [lambda step=step: objective.batches(step) for step in range(4)]
    return rehearse(objective, objective.batches(0)[0], steps, config(), Replicated(World()), **given)


def test_a_dry_run_learns_nothing_and_tells_time_and_memory(whole: Outcome, toy: Make, tmp_path: Path):
    objective = toy()
    before = objective.state()
    told = tried(objective)
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state().items())
    assert all(p.grad is None for part in objective.parts().values() for p in part.values())
    assert told.tokens == 3 * 2 * 12  # of four steps the first is not counted
    assert told.seconds >= told.waited > 0
    assert told.whole(2 * told.tokens) == pytest.approx(2 * told.seconds)
    assert told.peak > 1e7  # the process: libraries alone are more
    fit(objective, config(), tmp_path / "out")
    assert_equal(outcome(objective, tmp_path / "out"), whole)


def test_a_dry_run_stops_when_it_has_seen_enough(toy: Make):
    assert tried(toy(), enough=0.0).tokens == 2 * 2 * 12


def test_the_first_step_of_a_dry_run_is_not_counted_unless_it_is_the_only_one(
    toy: Make, monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]

    def seconds_of(step: int) -> list[Any]:
        clock[0] += 100.0 if step == 0 else 1.0  # its preparation takes so long
        return list(toy().batches(step))

    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    def told(count: int) -> Rehearsed:
        objective = toy()
        steps = [lambda step=step: seconds_of(step) for step in range(count)]
        return rehearse(objective, objective.batches(0)[0], steps, config(), Replicated(World()), enough=10.0)

    assert (told(1).seconds, told(1).tokens) == (100.0, 24)
    assert (told(4).seconds, told(4).tokens) == (3.0, 3 * 24)


def test_what_workers_make_ahead_takes_no_time_of_its_own():
    told = Rehearsed(largest=1.0, seconds=10.0, waited=4.0, tokens=100, peak=0)
    assert told.whole(200) == 20.0
    assert told.whole(200, workers=1) == 12.0
    slow = Rehearsed(largest=1.0, seconds=10.0, waited=9.0, tokens=100, peak=0)
    assert slow.whole(100, workers=1) == 9.0
    assert slow.whole(100, workers=3) == 3.0


def test_what_is_not_finite_in_a_dry_run_does_not_reach_the_weights(toy: Make):
    objective = toy()
    fine = objective.loss
    objective.loss = lambda batch: fine(batch) * math.nan
    before = objective.state()
    tried(objective)
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.state().items())


def test_the_most_memory_is_counted_anew():
    device = torch.device("cpu")
    memory.forget_peak(device)
    low = memory.peak(device)
    held = torch.ones(25_000_000)
    high = memory.peak(device)
    assert high - low > 0.8 * held.nbytes
    del held
    memory.forget_peak(device)
    assert memory.peak(device) < high
