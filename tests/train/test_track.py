"""Trackers, with modules that stand in for the services."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llavar.errors import LlavarError, MissingExtraError
from llavar.train.track import Kind, Trackers, opened

Call = tuple[Any, ...]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What the three services were told."""
    made: list[Call] = []

    class WandbRun:
        def log(self, values: dict[str, float], step: int) -> None:
            made.append(("wandb", step, values))

        def finish(self) -> None:
            made.append(("wandb", "finish"))

    def begin(**given: Any) -> WandbRun:
        made.append(("wandb", "init", given))
        return WandbRun()

    class Writer:
        def __init__(self, **given: Any) -> None:
            made.append(("tensorboard", "init", given))

        def add_text(self, name: str, text: str) -> None:
            made.append(("tensorboard", name, text))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            made.append(("tensorboard", step, {name: value}))

        def flush(self) -> None: ...

        def close(self) -> None:
            made.append(("tensorboard", "finish"))

    wandb, trackio, board = (ModuleType(n) for n in ("wandb", "trackio", "torch.utils.tensorboard"))
    wandb.init = begin  # type: ignore[attr-defined]
    trackio.init = lambda **given: made.append(("trackio", "init", given))  # type: ignore[attr-defined]
    trackio.log = lambda values, step: made.append(("trackio", step, values))  # type: ignore[attr-defined]
    trackio.finish = lambda: made.append(("trackio", "finish"))  # type: ignore[attr-defined]
    board.SummaryWriter = Writer  # type: ignore[attr-defined]
    for module in (wandb, trackio, board):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


def report(kinds: tuple[Kind, ...], out: Path, *, step: int = 5) -> list[str]:
    told: list[str] = []
    with opened(kinds, out, {"model": "m"}, told.append) as trackers:
        trackers.log(step, {"step": step, "loss": 0.5, "mfu": None, "metric": "anls"}, group="train")
    return told


@pytest.mark.parametrize("kind", Kind)
def test_numbers_arrive_under_their_names(kind: Kind, calls: list[Call], tmp_path: Path):
    assert report((kind,), tmp_path / "run") == []
    assert [call[0] for call in calls] == [kind] * len(calls)
    assert (kind, 5, {"train/loss": 0.5}) in calls
    assert calls[-1] == (kind, "finish")


def test_all_of_them_at_once(calls: list[Call], tmp_path: Path):
    report(tuple(Kind), tmp_path / "run")
    assert {call[0] for call in calls} == set(Kind)


def test_a_run_that_goes_on_is_the_same_run_there(calls: list[Call], tmp_path: Path):
    for _ in range(2):
        report((Kind.WANDB, Kind.TRACKIO), tmp_path / "run")
    report((Kind.WANDB,), tmp_path / "other")
    begun = [call[2] for call in calls if call[:2] == ("wandb", "init")]
    assert begun[0] == begun[1]
    assert begun[0]["id"] != begun[2]["id"]
    assert (begun[0]["resume"], begun[0]["name"], begun[0]["config"]) == ("allow", "run", {"model": "m"})
    one, other = (call[2] for call in calls if call[:2] == ("trackio", "init"))
    assert one == other


def test_steps_that_are_done_again_replace_those_of_before(calls: list[Call], tmp_path: Path):
    report((Kind.TENSORBOARD,), tmp_path / "run", step=7)
    (begun,) = (call[2] for call in calls if call[:2] == ("tensorboard", "init"))
    assert begun == {"log_dir": str(tmp_path / "run" / "tensorboard"), "purge_step": 7}
    assert ("tensorboard", "settings", "    model: m") in calls


@pytest.mark.parametrize("kind", Kind)
def test_one_that_is_not_installed_is_named_with_its_extra(
    kind: Kind, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("wandb", "trackio", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"--track {kind} needs .* pip install 'llavar\[track\]'"):
        report((kind,), tmp_path)


def test_one_that_cannot_be_started_ends_the_run_before_its_first_step(
    calls: list[Call], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def refuse(**_: Any) -> None:
        raise RuntimeError("no API key\nconfigured")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(LlavarError, match="wandb cannot be started: no API key configured; set it up"):
        report((Kind.TRACKIO, Kind.WANDB), tmp_path)
    assert calls[-1] == ("trackio", "finish")


class Broken:
    def log(self, step: int, values: object) -> None:
        raise OSError("the network is gone")

    def close(self) -> None:
        raise AssertionError("it was left alone")


class Fine:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, step: int, values: object) -> None:
        self.steps.append(step)

    def close(self) -> None:
        raise OSError("cannot say goodbye")


def test_what_they_print_is_no_output_of_ours(capsys: pytest.CaptureFixture[str]):
    class Loud:
        def log(self, step: int, values: Mapping[str, float]) -> None:
            print("look at me")

        def close(self) -> None:
            print("done")

    trackers = Trackers({Kind.TRACKIO: Loud()}, print)
    trackers.log(1, {"loss": 1.0}, group="train")
    trackers.close()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "look at me\ndone\n")


def test_one_that_fails_later_is_named_once_and_the_others_go_on():
    told: list[str] = []
    fine = Fine()
    trackers = Trackers({Kind.WANDB: Broken(), Kind.TRACKIO: fine}, told.append)
    for step in (1, 2):
        trackers.log(step, {"loss": 1.0}, group="train")
    trackers.close()
    assert fine.steps == [1, 2]
    assert told == [
        "wandb no longer gets this run's log (the network is gone); everything is in the run's own folder.",
        "trackio did not end well (cannot say goodbye); everything is in the run's own folder.",
    ]


# --- the services themselves, where they are installed ----------------------------------------------------


def numbers(out: Path, kind: Kind) -> None:
    """A run of three steps that is stopped, and goes on from its second."""
    for steps in ((1, 2, 3), (3, 4)):
        with opened((kind,), out, {"stage": {"batch": 4}, "data": ["a.json"]}, print) as trackers:
            for step in steps:
                values = {"step": step, "loss": 1 / step, "mfu": None}
                trackers.log(step, values, group="train")


def test_tensorboard_holds_every_step_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stored: Any = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    numbers(tmp_path / "out", Kind.TENSORBOARD)
    held = stored.EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    held.Reload()
    assert held.Tags()["scalars"] == ["train/loss"]
    assert [(e.step, round(e.value, 3)) for e in held.Scalars("train/loss")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 0.333),
        (4, 0.25),
    ]
    assert capsys.readouterr().out == ""


SERVICE = """
import sys
from pathlib import Path
from llavar.train.track import Kind, opened
out, kind = Path(sys.argv[1]), Kind(sys.argv[2])
for steps in ((1, 2, 3), (4,)):
    with opened((kind,), out, {"stage": {"batch": 4}, "data": ["a.json"]}, sys.exit) as trackers:
        for step in steps:
            trackers.log(step, {"step": step, "loss": 1 / step, "mfu": None}, group="train")
print("{}")
"""


@pytest.mark.parametrize("kind", [Kind.WANDB, Kind.TRACKIO])
def test_services_take_a_run_offline_and_leave_the_output_alone(kind: Kind, tmp_path: Path):
    pytest.importorskip(kind.value, reason=f"{kind} is not installed")
    # In a process of its own: they start others, and read where to write when they are imported.
    own = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, str(tmp_path / "out"), kind.value],
        capture_output=True,
        text=True,
        env={**os.environ, **own, **paths},
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "{}\n"), done.stderr
    if kind is Kind.WANDB:
        assert len(list((tmp_path / "out" / "wandb").glob("offline-run-*/run-*.wandb"))) >= 1
    else:
        assert list((tmp_path / "trackio").glob("llavar.*"))
