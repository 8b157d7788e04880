"""Two processes give what one gives, and end together."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from llavar.errors import ConfigError
from llavar.train import metrics
from llavar.train.world import World, connected

SCRIPT = Path(__file__).with_name("two_processes.py")
SOURCE = Path(__file__).parents[2] / "src"


def scenarios() -> ModuleType:
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What both processes found, by rank, and their folder."""
    out = tmp_path_factory.mktemp("pair")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, str(SCRIPT), str(out)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out, [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


Pair = tuple[Path, list[dict[str, Any]]]


@pytest.mark.parametrize("name", ["token mean", "batch mean", "packed", "projector"])
def test_two_processes_give_the_losses_of_one(name: str, pair: Pair, tmp_path: Path):
    script = scenarios()
    config, packing = script.STRAIGHT[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = script.outcome(script.objective(World(), packing=packing), config, tmp_path, World())
    torch.set_num_threads(threads)
    first, second = (found[name] for found in pair[1])
    assert first == second  # every process holds the same weights and saw the same log
    assert [step for step, *_ in first["ticks"]] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(first["ticks"], alone["ticks"], strict=True):
        assert one == pytest.approx(list(other), rel=2e-5)


def test_only_the_first_process_writes(pair: Pair):
    out, _ = pair
    log = metrics.read(out / "token mean" / "metrics.jsonl")
    assert [tick.step for tick in log] == [1, 2, 3, 4, 5, 6]
    saves = sorted(path.name for path in (out / "token mean" / "checkpoints").iterdir())
    assert saves == ["step-00000004.pt", "step-00000006.pt"]


def test_one_that_is_asked_to_stop_stops_both_and_they_go_on_bit_identically(pair: Pair):
    for found in pair[1]:
        assert found["interrupted"]["resumed_at"] == 3
        assert found["interrupted"]["weights"] == found["token mean"]["weights"]
        assert found["interrupted"]["ticks"] == found["token mean"]["ticks"]


def test_an_error_in_one_is_an_error_in_both_and_what_was_done_is_kept(pair: Pair):
    first, second = (found["failed"] for found in pair[1])
    assert (second["kind"], second["sentence"]) == ("DataError", "row 'x' is odd; mend it")
    assert first["kind"] == "LlavarError"
    assert first["sentence"] == "process 1 of 2 ended the run: row 'x' is odd; mend it"
    assert first["resumed_at"] == 2
    assert first["weights"] == second["weights"] == pair[1][0]["token mean"]["weights"]


def test_processes_that_are_not_at_one_find_out(pair: Pair):
    for found in pair[1]:
        assert "the processes differ in their opinions (0 to 1)" in found["disagreed"]


def test_no_thread_of_the_process_group_outlives_it(pair: Pair):
    """One that did would abort the process where it meets the end of the interpreter."""
    for found in pair[1]:
        assert [name for name in found["threads"] if "gloo" in name] == []


def test_a_process_alone_has_nobody_to_ask():
    world = World()
    parameter = nn.Parameter(torch.ones(2))
    world.reduce([parameter])
    world.agree(3, "steps")
    world.barrier()
    assert parameter.grad is None
    assert world.totals([1.5, 2.0]) == [1.5, 2.0]
    assert world.first
    with pytest.raises(KeyError), world.together():
        raise KeyError("as it is")


def test_micro_batches_are_dealt_evenly_or_not_at_all():
    script = scenarios()
    with pytest.raises(ConfigError, match="2 micro-batches and there are 3 processes; change the batch"):
        script.objective(World(rank=0, size=3))
    whole = script.objective(World())
    dealt = [script.objective(World(rank=rank, size=2)) for rank in range(2)]
    for step in range(3):
        ids = [[batch.ids.tolist() for batch in one.batches(step)] for one in (whole, *dealt)]
        assert ids[0] == [*ids[1], *ids[2]]


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "two"), ("RANK", "-1"), ("RANK", "")])
def test_an_environment_that_is_half_there_is_an_error(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, value)

    def enter() -> None:
        with connected():
            pass

    with pytest.raises(ConfigError, match=f"{name} is '{value}' in the environment; .* with torchrun"):
        enter()


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with connected() as world:
        assert (world.rank, world.size) == (0, 1)
