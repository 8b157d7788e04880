from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llavar.errors import DataError
from llavar.train import metrics
from llavar.train.metrics import Meter, Owed, Size, Tick

TICK = Tick(
    step=10,
    loss=0.1 + 0.2,
    lr=1e-3,
    grad_norm=0.5,
    samples_per_second=3.0,
    tokens_per_second=99.0,
    wait=0.25,
    seconds=12.5,
    left=4.0,
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    for step in (10, 20, 30):
        metrics.append(replace(TICK, step=step), path)
    return path


def test_entries_come_back_exactly(log: Path):
    assert metrics.read(log) == [replace(TICK, step=step) for step in (10, 20, 30)]
    assert len(log.read_text(encoding="utf-8").splitlines()) == 3


def test_a_log_that_is_not_there_is_empty(tmp_path: Path):
    assert metrics.read(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("torn", ['{"step": 40, "lo', "{", '{"step": 40}', "\x00\x00\x00"])
def test_a_last_line_that_a_kill_tore_is_left_out(log: Path, torn: str):
    with log.open("a", encoding="utf-8") as file:
        file.write(torn)
    assert [tick.step for tick in metrics.read(log)] == [10, 20, 30]
    metrics.rewind(log, 20)
    metrics.append(replace(TICK, step=40), log)
    assert [tick.step for tick in metrics.read(log)] == [10, 20, 40]


def test_a_bad_line_anywhere_else_is_an_error(log: Path):
    lines = log.read_text(encoding="utf-8").splitlines()
    log.write_text("\n".join([lines[0], "oops", lines[2]]), encoding="utf-8")
    with pytest.raises(DataError, match="line 2 of .*metrics.jsonl is no log entry"):
        metrics.read(log)


def test_rewinding_drops_what_will_be_done_again(log: Path):
    metrics.rewind(log, 25)
    assert [tick.step for tick in metrics.read(log)] == [10, 20]
    metrics.rewind(log, 20)
    assert [tick.step for tick in metrics.read(log)] == [10, 20]
    metrics.rewind(log, 0)
    assert log.read_text(encoding="utf-8") == ""
    assert [path.name for path in log.parent.iterdir()] == ["metrics.jsonl"]


def sizes(*supervised: int) -> list[Size]:
    return [Size(samples=2, tokens=10, supervised=count) for count in supervised]


def test_the_loss_is_a_mean_over_tokens_and_begins_again():
    meter = Meter(100)
    meter.add(sizes(3, 1), loss=2.0, norm=0.1, waited=0.0)
    meter.add(sizes(1), loss=7.0, norm=0.4, waited=0.0)
    tick = meter.tick(2, 1e-3)
    assert (tick.step, tick.loss, tick.lr, tick.grad_norm) == (2, pytest.approx(3.0), 1e-3, 0.4)
    assert tick.tokens_per_second == pytest.approx(5 * tick.samples_per_second)
    assert tick.left == pytest.approx(tick.seconds * 98 / 2)
    meter.add(sizes(5), loss=1.5, norm=0.3, waited=0.0)
    assert meter.tick(3, 1e-3).loss == pytest.approx(1.5)


def test_waiting_is_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 0.0, 8.0, 8.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    meter = Meter(4)
    meter.add(sizes(1, 1), loss=1.0, norm=0.0, waited=2.0)
    tick = meter.tick(1, 1e-3)
    assert (tick.wait, tick.samples_per_second, tick.tokens_per_second) == (0.25, 0.5, 2.5)
    assert (tick.seconds, tick.left) == (8.0, 24.0)


def test_a_meter_goes_on_where_another_was():
    whole, first, second = Meter(9), Meter(9), Meter(9)
    padded = [Size(samples=1, tokens=16, supervised=2, useful=11)]
    steps = [(sizes(3), 0.7), ([*sizes(5), *padded], 0.31), (sizes(1), 0.11)]
    for size, loss in steps:
        whole.add(size, loss=loss, norm=0.0, waited=0.0)
    for size, loss in steps[:2]:
        first.add(size, loss=loss, norm=0.0, waited=0.0)
    second.restore(first.unlogged)
    second.add(steps[2][0], loss=steps[2][1], norm=0.0, waited=0.0)
    assert second.unlogged == whole.unlogged
    resumed, straight = second.tick(3, 1e-3), whole.tick(3, 1e-3)
    assert (resumed.loss, resumed.padding) == (straight.loss, straight.padding)
    assert second.unlogged == Owed()


def test_padding_of_steps_before_a_restart_counts_and_their_time_does_not(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 0.0, 2.0, 2.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    meter = Meter(4)
    meter.restore(Owed(loss=6.0, supervised=3, tokens=30, useful=30))
    meter.add([Size(samples=1, tokens=10, supervised=1, useful=6)], loss=2.0, norm=0, waited=0)
    tick = meter.tick(2, 1e-3)
    assert (tick.loss, tick.padding, tick.tokens_per_second) == (2.0, pytest.approx(0.1), 5.0)


def test_looking_at_the_model_is_no_training(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 0.0, 10.0, 10.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    meter = Meter(4)
    meter.add(sizes(1, 1), loss=1.0, norm=0.0, waited=1.0)
    meter.pause(6.0)
    tick = meter.tick(1, 1e-3)
    assert (tick.samples_per_second, tick.wait, tick.seconds) == (1.0, 0.25, 10.0)


def test_padding_and_the_share_of_the_peak_are_of_useful_tokens(monkeypatch: pytest.MonkeyPatch):
    clock = iter([0.0, 0.0, 2.0, 2.0])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    meter = Meter(4, peak=1000.0)
    meter.add([Size(samples=1, tokens=10, supervised=2, useful=8, flops=500.0)], loss=1.0, norm=0, waited=0)
    tick = meter.tick(1, 1e-3, memory_gb=1.5)
    assert (tick.useful_tokens_per_second, tick.padding, tick.mfu) == (4.0, pytest.approx(0.2), 0.25)
    assert tick.memory_gb == 1.5


def test_without_a_peak_or_padding_nothing_is_made_up():
    meter = Meter(4)
    meter.add(sizes(1), loss=1.0, norm=0.0, waited=0.0)
    tick = meter.tick(1, 1e-3)
    assert (tick.padding, tick.mfu) == (0.0, None)


def test_entries_of_an_older_log_are_read(log: Path):
    lines = log.read_text(encoding="utf-8").splitlines()
    old = {k: v for k, v in json.loads(lines[0]).items() if k not in ("padding", "mfu", "memory_gb")}
    log.write_text(json.dumps(old) + "\n", encoding="utf-8")
    assert metrics.read(log)[0].padding == 0
