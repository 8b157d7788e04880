"""The runner: nothing lost, nothing doubled, nothing computed twice, whatever happens."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llavar.corpus.item import Item, Origin
from llavar.corpus.shards import SCAN, Corpus, RunSettings, RunSummary, Step, rejects_of
from llavar.errors import ConfigError, DataError, MissingExtraError, ModelError
from llavar.records import Reject

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
SETTINGS = RunSettings(shard_rows=8, workers=2)


def traced(trace: Path) -> Counter[str]:
    """How many items each stage has computed since the last look."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    trace.write_text("")
    return Counter(line.split()[0] for line in lines)


def run(root: Path, stages: ModuleType, count: int = 40, **changed: Any) -> RunSummary:
    chain = [
        changed.get("row", stages.Row()),
        changed.get("many", stages.Many()),
        changed.get("whole", stages.Whole()),
    ]
    return Corpus(root).run(stages.Numbers(count=count), chain, settings=changed.get("settings", SETTINGS))


def ids(corpus: Corpus, stage: str) -> list[str]:
    return [item.id for items in corpus.items(stage) for item in items]


def test_items_pass_all_stages_in_order_and_each_reject_says_where_and_why(
    tmp_path: Path, stages: ModuleType
):
    summary = run(tmp_path, stages)
    assert [(s.stage, s.shards, s.rows, s.kept) for s in summary.stages] == [
        ("scan", 5, 40, 36),
        ("row", 5, 36, 32),
        ("many", 5, 32, 32),
        ("whole", 5, 32, 8),
    ]
    corpus = Corpus(tmp_path)
    assert ids(corpus, "whole") == [f"n{number}" for number in (0, 1, 2, 4, 5, 6, 7, 8)]
    assert [item.description for items in corpus.items("whole") for item in items][:2] == [
        "0, many",
        "1, many",
    ]
    ended = [rejected for shard in corpus.rejected("row") for rejected in shard]
    assert [(one.item.id, one.reject.stage, one.reject.reason, one.reject.detail) for one in ended] == [
        (f"n{number}", "row", "ends in 3", str(number)) for number in (3, 13, 23, 33)
    ]
    assert ended[0].item.origin.caption == "3"
    scanned = [rejected.reject.id for shard in corpus.rejected("scan") for rejected in shard]
    assert scanned == ["n9", "n19", "n29", "n39"]


def test_a_second_run_computes_nothing(tmp_path: Path, stages: ModuleType, trace: Path):
    run(tmp_path, stages)
    before = stages.digest(tmp_path)
    assert traced(trace) == {"row": 36, "many": 32, "whole": 32}
    summary = run(tmp_path, stages)
    assert traced(trace) == {}
    assert [stage.computed for stage in summary.stages] == [0, 0, 0, 0]
    assert stages.digest(tmp_path) == before


def test_a_changed_setting_redoes_what_depends_on_it(tmp_path: Path, stages: ModuleType, trace: Path):
    run(tmp_path / "a", stages)
    traced(trace)
    changed = {"many": stages.Many(settings=stages.Tell(note="very "))}
    run(tmp_path / "a", stages, **changed)
    assert traced(trace) == {"many": 32, "whole": 32}
    run(tmp_path / "b", stages, **changed)
    assert stages.digest(tmp_path / "a") == stages.digest(tmp_path / "b")


def test_a_stage_whose_input_comes_out_equal_is_left_alone(tmp_path: Path, stages: ModuleType, trace: Path):
    run(tmp_path, stages)
    traced(trace)
    run(tmp_path, stages, row=stages.Row(version=2, time_limit=None))
    assert traced(trace) == {"row": 36}


def test_settings_that_come_back_are_computed_again_and_come_out_equal(tmp_path: Path, stages: ModuleType):
    run(tmp_path, stages)
    before = stages.digest(tmp_path)
    run(tmp_path, stages, row=stages.Row(settings=stages.Tell(note="x"), time_limit=None))
    assert stages.digest(tmp_path) != before
    run(tmp_path, stages)
    assert stages.digest(tmp_path) == before


def test_a_smaller_source_leaves_no_shards_of_the_larger_one(tmp_path: Path, stages: ModuleType):
    run(tmp_path / "a", stages, count=40)
    run(tmp_path / "a", stages, count=20)
    run(tmp_path / "b", stages, count=20)
    assert stages.digest(tmp_path / "a") == stages.digest(tmp_path / "b")


def test_neither_workers_nor_processes_change_a_byte(tmp_path: Path, stages: ModuleType):
    run(tmp_path / "a", stages, row=stages.Row(), settings=RunSettings(shard_rows=8, workers=1))
    run(tmp_path / "b", stages, row=stages.Row(), settings=RunSettings(shard_rows=8, workers=3))
    run(tmp_path / "c", stages)
    assert len({stages.digest(tmp_path / name) for name in "abc"}) == 1


def test_a_file_that_was_removed_is_made_again(tmp_path: Path, stages: ModuleType, trace: Path):
    run(tmp_path, stages)
    before = stages.digest(tmp_path)
    traced(trace)
    corpus = Corpus(tmp_path)
    corpus.path("row", 2).unlink()
    rejects_of(corpus.path("many", 1)).unlink()
    run(tmp_path, stages)
    assert traced(trace) == {"row": 7, "many": 6}
    assert stages.digest(tmp_path) == before


def test_items_that_hang_die_or_fail_are_rejects_and_the_shard_goes_on(tmp_path: Path, stages: ModuleType):
    bad = stages.Row(hangs="5", dies="11", fails="20", time_limit=1.5)
    run(tmp_path, stages, row=bad)
    ended = [rejected.reject for shard in Corpus(tmp_path).rejected("row") for rejected in shard]
    found = {reject.id: (reject.reason, reject.detail) for reject in ended if reject.reason != "ends in 3"}
    assert found == {
        "n5": ("it took longer than the time limit", "1.5 s"),
        "n11": ("the process died on it", "exit code 3, 3 times"),
        "n20": ("the stage failed on it", "RuntimeError: cannot be described"),
    }
    assert len(ids(Corpus(tmp_path), "row")) == 29


def test_an_item_that_fails_where_it_runs_here_is_a_reject_too(tmp_path: Path, stages: ModuleType):
    run(tmp_path, stages, row=stages.Row(fails="20", time_limit=None))
    ended = [rejected.reject for shard in Corpus(tmp_path).rejected("row") for rejected in shard]
    assert ("n20", "the stage failed on it") in [(reject.id, reject.reason) for reject in ended]


def test_a_stage_that_cannot_load_ends_the_run_with_its_sentence(tmp_path: Path, stages: ModuleType):
    with pytest.raises(ModelError, match="its file is not there; get it"):
        run(tmp_path, stages, row=stages.Unloadable())


def test_two_stages_of_one_name_and_two_runs_in_one_folder_are_refused(tmp_path: Path, stages: ModuleType):
    with pytest.raises(ConfigError, match="two stages have one name among scan, row, row"):
        Corpus(tmp_path).run(stages.Numbers(count=5), [stages.Row(), stages.Row()])

    def inside(step: Step) -> None:
        if step.stage == "row":
            with pytest.raises(ConfigError, match="another process computes the corpus in .*; wait for it"):
                Corpus(tmp_path).run(stages.Numbers(count=5), [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Corpus(tmp_path).run(stages.Numbers(count=5), [stages.Row(time_limit=None)], on_step=inside)


class _Empty:
    settings = None

    def fingerprint(self) -> str:
        return ""

    def items(self) -> Any:
        return iter(())


def test_an_empty_source_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match="the source has no items"):
        Corpus(tmp_path).run(_Empty(), [])


def test_a_manifest_that_is_none_is_an_error_that_names_it(tmp_path: Path, stages: ModuleType):
    (tmp_path / "manifest.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(DataError, match=r"manifest.sqlite is no manifest .*; remove it"):
        run(tmp_path, stages)


@pytest.mark.parametrize("changes", [{"shard_rows": 0}, {"shard_rows": 10**6}, {"workers": 0}])
def test_settings_that_cannot_work_are_refused(changes: dict[str, int]):
    with pytest.raises(ConfigError, match=f"is {next(iter(changes.values()))}; give"):
        RunSettings(**changes)


def test_progress_counts_every_item_once(tmp_path: Path, stages: ModuleType):
    steps: list[Step] = []
    chain = [stages.Row(time_limit=None), stages.Many()]
    Corpus(tmp_path).run(stages.Numbers(count=40), chain, settings=SETTINGS, on_step=steps.append)
    last = {step.stage: step for step in steps}
    assert [(step.done, step.total, step.rejected) for step in last.values()] == [
        (40, 0, 0),
        (36, 36, 4),
        (32, 32, 0),
    ]
    assert [step.note for step in steps if step.note] == [f"n{n}: ends in 3" for n in (3, 13, 23, 33)]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import runner_stages as stages
from llavar.corpus.shards import Corpus, RunSettings
if __name__ == "__main__":
    chain = [stages.Row(), stages.Many(), stages.Whole()]
    Corpus(Path(sys.argv[1])).run(
        stages.Numbers(count=40), chain, settings=RunSettings(shard_rows=8, workers=2)
    )
"""


def test_killed_again_and_again_it_ends_in_the_same_bytes(tmp_path: Path, stages: ModuleType):
    run(tmp_path / "straight", stages)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(here=str(HERE)))
    trace = tmp_path / "killed.trace"
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "RUNNER_TRACE": str(trace),
        "RUNNER_PAUSE": "0.02",
    }
    command = [sys.executable, str(script), str(tmp_path / "killed")]
    chance, kills = random.Random(3), 0
    while True:
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        wanted = chance.randrange(1, 25) + _lines(trace)
        while process.poll() is None and (kills >= 6 or _lines(trace) < wanted):
            time.sleep(0.005)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0
    assert kills == 6
    assert stages.digest(tmp_path / "killed") == stages.digest(tmp_path / "straight")
    assert not list((tmp_path / "killed").rglob("*.journal"))
    computed = Counter(line for line in trace.read_text().splitlines() if line.startswith(("row ", "many ")))
    assert sum(computed.values()) < 68 + 6 * 5  # a kill costs what was being computed, not a shard


def _lines(trace: Path) -> int:
    return len(trace.read_text().splitlines()) if trace.exists() else 0


def test_a_torn_or_foreign_journal_costs_no_more_than_itself(tmp_path: Path, stages: ModuleType, trace: Path):
    run(tmp_path / "straight", stages)

    def stop(step: Step) -> None:
        if step.stage == "many" and step.done == 10:
            raise KeyboardInterrupt

    chain = [stages.Row(time_limit=None), stages.Many(), stages.Whole()]
    with pytest.raises(KeyboardInterrupt):
        Corpus(tmp_path / "torn").run(stages.Numbers(count=40), chain, settings=SETTINGS, on_step=stop)
    (journal,) = (tmp_path / "torn").rglob("*.journal")
    whole = journal.read_bytes()
    assert len(whole.splitlines()) == 4  # the key and three items of the second shard
    traced(trace)
    journal.write_bytes(whole[:-20])
    run(tmp_path / "torn", stages)
    assert traced(trace)["many"] == 32 - 7 - 2
    assert stages.digest(tmp_path / "torn") == stages.digest(tmp_path / "straight")


def test_a_journal_of_other_settings_is_not_believed(tmp_path: Path, stages: ModuleType):
    path = Corpus(tmp_path).path("many", 0).with_suffix(".journal")
    path.parent.mkdir(parents=True)
    wrong = {"index": 0, "item": None, "reject": {"id": "n0", "stage": "many", "reason": "no", "detail": ""}}
    path.write_text("another key\n" + json.dumps(wrong) + "\n")
    run(tmp_path, stages)
    assert "n0" in ids(Corpus(tmp_path), "many")


def test_items_survive_the_way_through_a_file(tmp_path: Path):
    from llavar.corpus.parquet import Table

    item = Item(id="a", origin=Origin(source="s", caption="na\u00efve \u2028 \U0001f600"))
    path = tmp_path / "x.parquet"
    Table(Item).write(path, [item])
    assert Table(Item).read(path) == [item]
    with pytest.raises(DataError, match="holds no rows of Reject"):
        Table(Reject).read(path)
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="is no Parquet file"):
        Table(Item).read(path)


# ------------------------------------------------------------------------------------------ some stages


def test_a_run_that_stops_early_computes_no_more_and_forgets_nothing(tmp_path: Path, stages: ModuleType):
    corpus, source = Corpus(tmp_path), stages.Numbers(count=20)
    chain = [stages.Row(time_limit=None), stages.Many()]

    def run_until(until: str | None) -> list[tuple[str, int]]:
        summary = corpus.run(source, chain, settings=SETTINGS, until=until)
        return [(stage.stage, stage.computed) for stage in summary.stages]

    assert run_until(SCAN) == [("scan", 3)]
    assert run_until("row") == [("scan", 0), ("row", 3)]
    assert [(one.stage, one.shards) for one in corpus.chain()] == [("scan", 3), ("row", 3), ("many", 0)]
    assert run_until(None) == [("scan", 0), ("row", 0), ("many", 3)]
    assert run_until("row") == [("scan", 0), ("row", 0)]
    assert [one.shards for one in corpus.chain()] == [3, 3, 3]
    with pytest.raises(ConfigError, match="no stage 'third' to stop after; the stages are scan, row, many"):
        run_until("third")


def test_the_first_stage_that_is_behind_is_named_and_nothing_is_computed(
    tmp_path: Path, stages: ModuleType, trace: Path
):
    corpus, source = Corpus(tmp_path), stages.Numbers(count=20)
    chain = [stages.Row(time_limit=None), stages.Many()]

    def behind(source: Any = source, chain: Any = chain, rows: int = SETTINGS.shard_rows) -> str | None:
        return corpus.behind(source, chain, settings=RunSettings(shard_rows=rows))

    corpus.run(source, chain, settings=SETTINGS, until="row")
    traced(trace)
    assert behind() == "many"
    corpus.run(source, chain, settings=SETTINGS)
    assert behind() is None
    assert behind(chain=[stages.Row(time_limit=None, settings=stages.Tell(note="x")), chain[1]]) == "row"
    assert behind(source=stages.Numbers(count=21)) == "scan"
    assert behind(rows=9) == "scan"
    corpus.path("row", 1).unlink()
    assert behind() == "row"
    assert "row" not in traced(trace)


def test_without_parquet_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"Parquet files.* 'pyarrow': run  pip install 'llavar\[ocr\]'"
    ):
        Corpus(tmp_path)


def test_a_decision_is_parsed_once_for_all_shards(tmp_path: Path, stages: ModuleType):
    parsed: list[bytes] = []

    class Counting(stages.Whole):
        def judge(self, decision: bytes) -> object:
            parsed.append(decision)
            return super().judge(decision)

    summary = run(tmp_path, stages, whole=Counting())
    assert summary.stages[-1].shards == 5
    assert len(parsed) == 1
