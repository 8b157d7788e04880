from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llavar.train import checkpoint, metrics
from llavar.train.config import LoopConfig, PartConfig
from llavar.train.metrics import Size
from llavar.train.run import Run, deferred


@pytest.fixture(autouse=True)
def handlers() -> Generator[None]:
    """Gives the signals back as they were, whatever a test does to them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_interrupt_waits_for_the_end_of_the_block():
    seen: list[str] = []
    handler = signal.getsignal(signal.SIGINT)

    def block() -> None:
        with deferred(signal.SIGINT):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            seen.append("finished")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert seen == ["finished"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_block_without_a_signal_just_runs():
    handler = signal.getsignal(signal.SIGINT)
    with deferred(signal.SIGINT):
        assert signal.getsignal(signal.SIGINT) is not handler
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_signal_is_not_lost_when_the_block_fails():
    def block() -> None:
        with deferred(signal.SIGINT):
            signal.raise_signal(signal.SIGINT)
            raise ValueError("broken")

    with pytest.raises(KeyboardInterrupt) as caught:
        block()
    assert isinstance(caught.value.__context__, ValueError)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_each_of_two_signals_finds_its_own_handler_again(number: signal.Signals):
    def stop(came: int, frame: object) -> None:
        raise SystemExit(came)

    def block() -> None:
        with deferred(signal.SIGINT), deferred(signal.SIGTERM):
            signal.raise_signal(number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    with pytest.raises(SystemExit) as caught:
        block()
    assert caught.value.code == number
    assert {signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)} == {stop}


def test_signals_that_python_leaves_alone_stay_alone():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with deferred(signal.SIGTERM):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_other_threads_change_no_handler():
    handler, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with deferred(signal.SIGINT):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [handler]


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., tuple[Run, nn.Linear]]:
    """Starts a run of 20 steps over one layer, in one folder for all."""

    def make(fingerprint: str = "f", **settings: Any) -> tuple[Run, nn.Linear]:
        torch.manual_seed(1)
        layer = nn.Linear(2, 2)
        config = LoopConfig(**({"steps": 20, "parts": {"a": PartConfig(lr=0.1)}, "log_every": 4} | settings))
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        run = Run(config, tmp_path, fingerprint, dict(layer.named_parameters()), optimizer)
        run.resume()
        return run, layer

    return make


def step(run: Run, layer: nn.Linear, loss: float = 1.0) -> metrics.Tick | None:
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    size = Size(samples=1, tokens=2, supervised=1)
    return run.finish_step([size], loss=loss, norm=1.0, factor=0.5, waited=0.0)


def test_a_finished_step_is_counted_and_logged_when_due(begin: Callable[..., tuple[Run, nn.Linear]]):
    run, layer = begin()
    before = layer.weight.detach().clone()
    assert [step(run, layer, loss) for loss in (1.0, 2.0, 3.0)] == [None] * 3
    tick = step(run, layer, 4.0)
    assert tick is not None
    assert (tick.step, tick.loss, tick.lr) == (4, 2.5, 0.05)
    assert metrics.read(run.log) == [tick]
    assert run.done == 4
    assert not torch.equal(layer.weight, before)
    assert layer.weight.grad is None


def test_after_an_error_in_the_middle_of_an_update_nothing_is_saved(
    begin: Callable[..., tuple[Run, nn.Linear]], monkeypatch: pytest.MonkeyPatch
):
    run, layer = begin()
    step(run, layer)
    run.save()

    def half(self: object) -> None:
        with torch.no_grad():
            layer.weight.add_(1)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", half)
    with pytest.raises(RuntimeError, match="out of memory"):
        step(run, layer)
    run.save()
    monkeypatch.undo()
    again, fresh = begin()
    assert again.done == 1
    assert not torch.equal(fresh.weight, layer.weight)


def test_a_log_that_cannot_be_written_leaves_nothing_to_save(
    begin: Callable[..., tuple[Run, nn.Linear]], monkeypatch: pytest.MonkeyPatch
):
    def full(tick: object, path: Path) -> None:
        raise OSError(28, "No space left on device")

    run, layer = begin(log_every=1)
    monkeypatch.setattr(metrics, "append", full)
    with pytest.raises(OSError, match="No space left"):
        step(run, layer)
    run.save()
    assert checkpoint.newest(run.saves) is None


def test_a_step_is_saved_once(begin: Callable[..., tuple[Run, nn.Linear]], monkeypatch: pytest.MonkeyPatch):
    saved: list[int] = []
    write = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda state, folder, keep: (saved.append(state.step), write(state, folder))
    )
    run, layer = begin()
    run.save()
    step(run, layer)
    run.save()
    run.save()
    step(run, layer)
    run.save()
    begin()[0].save()
    assert saved == [1, 2]
