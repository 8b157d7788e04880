"""The stages on a Ray of two workers: the same files to the byte, whoever is killed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llavar.cli import main
from llavar.corpus.cluster import cluster
from llavar.corpus.cluster_node import TOKEN
from llavar.corpus.cluster_ray import Machines, machines
from llavar.corpus.shards import Corpus, RunSettings, Step
from llavar.errors import ConfigError, ModelError

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
PATH = os.pathsep.join([str(SOURCE), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
OURS = {
    "PYTHONPATH": PATH,
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback, for whoever joins as well
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | OURS


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("cluster_work")


OWNER = """
import sys
from llavar.corpus.cluster_ray import machines
if __name__ == "__main__":
    with machines("", workers=2) as found:
        print(found.ray.get_runtime_context().gcs_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Ray of this machine, in a process of its own; its workers find the modules of this folder."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    script = tmp_path_factory.mktemp("ray") / "owner.py"
    script.write_text(OWNER)
    owner = subprocess.Popen(
        [sys.executable, str(script)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        yield owner.stdout.readline().strip()
        owner.communicate()
    assert owner.returncode == 0


@pytest.fixture(scope="module")
def joined(address: str) -> Iterator[Machines]:
    """This process as a driver of that Ray; runs find that it has joined."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OURS.items():
            patch.setenv(name, value)
        with machines(address) as found:
            assert not found.is_ours
            yield found


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("runner_stages")


def run(
    root: Path,
    source: Any,
    chain: Sequence[Any],
    *,
    workers: int = 2,
    on_step: Any = None,
    on_cluster: bool,
) -> None:
    """Compute a corpus here, or on the Ray that this process has joined."""
    settings = RunSettings(shard_rows=8, workers=workers)
    if not on_cluster:
        Corpus(root).run(source, chain, settings=settings, on_step=on_step)
        return
    with cluster("", root) as found:
        Corpus(root).run(source, chain, settings=replace(settings, crews=found), on_step=on_step)
    assert not (root / TOKEN).exists()


def test_on_two_workers_the_files_are_those_of_one_machine_to_the_byte(
    joined: Machines, tmp_path: Path, stages: ModuleType
):
    row = stages.Row(hangs="5", dies="11", fails="20", time_limit=3.0)
    chain = [row, stages.Many(), stages.Whole()]
    for name, on_cluster in (("here", False), ("there", True)):
        run(tmp_path / name, stages.Numbers(count=40), chain, on_cluster=on_cluster)
    assert stages.digest(tmp_path / "here") == stages.digest(tmp_path / "there")
    ended = [one.reject for shard in Corpus(tmp_path / "there").rejected("row") for one in shard]
    reasons = Counter(reject.reason for reject in ended)
    assert reasons["it took longer than the time limit"] == 1
    assert reasons["the process died on it"] == 1
    assert reasons["the stage failed on it"] == 1


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(
    joined: Machines, tmp_path: Path, stages: ModuleType, work: ModuleType
):
    trace, struck = tmp_path / "trace", list[int]()

    def strike(step: Step) -> None:
        if step.stage == "slow" and step.done >= 12 and not struck:
            actor = int(work.lines(trace)[-1][2])
            struck.append(actor)
            os.kill(actor, signal.SIGKILL)

    source = stages.Numbers(count=40)
    run(
        tmp_path / "here",
        source,
        [work.Slow(trace=tmp_path / "other", pause=0.0, time_limit=None)],
        on_cluster=False,
    )
    run(tmp_path / "there", source, [work.Slow(trace=trace)], workers=1, on_step=strike, on_cluster=True)
    assert struck
    assert stages.digest(tmp_path / "here") == stages.digest(tmp_path / "there")
    seen = work.lines(trace)
    assert len({actor for _, _, actor in seen}) == 2
    assert len({item for item, _, _ in seen}) == 36
    assert len(seen) < 36 + 12  # the tasks of one call were done again, and no others


SCRIPT = """
import sys
from pathlib import Path
import cluster_work as work
import runner_stages as stages
from llavar.corpus.cluster import cluster
from llavar.corpus.shards import Corpus, RunSettings
if __name__ == "__main__":
    root, trace, address = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    with cluster(address, root) as joined:
        settings = RunSettings(shard_rows=8, workers=2, crews=joined)
        Corpus(root).run(stages.Numbers(count=60), [work.Slow(trace=trace)], settings=settings)
"""


def test_a_driver_that_is_killed_goes_on_where_it_was(
    joined: Machines, address: str, tmp_path: Path, stages: ModuleType, work: ModuleType
):
    script, trace = tmp_path / "script.py", tmp_path / "trace"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "killed"), str(trace), address]
    driver = subprocess.Popen(command, env=ENVIRONMENT)
    while driver.poll() is None and len(work.lines(trace)) < 25:
        time.sleep(0.01)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    before = len(work.lines(trace))
    source = stages.Numbers(count=60)
    run(tmp_path / "killed", source, [work.Slow(trace=trace)], on_cluster=True)
    run(
        tmp_path / "here",
        source,
        [work.Slow(trace=tmp_path / "other", pause=0.0, time_limit=None)],
        on_cluster=False,
    )
    assert stages.digest(tmp_path / "killed") == stages.digest(tmp_path / "here")
    assert len(work.lines(trace)) - before < 54 - 4  # what was done before was not done again


def test_what_the_nodes_lack_ends_the_run_with_a_sentence(
    joined: Machines, tmp_path: Path, stages: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    source = stages.Numbers(count=4)
    with pytest.raises(ModelError, match="on the node .*: its file is not there; get it"):
        run(tmp_path / "a", source, [stages.Unloadable()], on_cluster=True)
    monkeypatch.setattr("llavar.corpus.cluster.versions", lambda: (("pillow", "0.1"),))
    with pytest.raises(ConfigError, match="has pillow .* and the driver 0.1"):
        run(tmp_path / "b", source, [stages.Row()], on_cluster=True)


def test_the_command_makes_the_same_files_on_a_cluster(
    joined: Machines,
    tmp_path: Path,
    stages: ModuleType,
    work: ModuleType,
    capsys: pytest.CaptureFixture[str],
):
    recipe = work.pictures(tmp_path)
    for name, flags in (("here", []), ("there", ["--cluster"])):
        out = str(tmp_path / name)
        assert main(["corpus", "run", str(recipe), "--out", out, "--until", "exact", *flags]) == 0
    assert "cluster: 1 node with 2 CPUs and 0 GPUs" in capsys.readouterr().err
    assert stages.digest(tmp_path / "here") == stages.digest(tmp_path / "there")
    items = [item for shard in Corpus(tmp_path / "there").items("exact") for item in shard]
    assert len(items) == 6
    assert all(item.fingerprint is not None for item in items)
