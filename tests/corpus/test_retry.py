"""``--retry``: what was left out for reasons that pass is tried again, and nothing else."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from PIL import Image

from llavar.cli import main
from llavar.corpus.engines import rapidocr
from llavar.corpus.item import Item, Origin
from llavar.corpus.open_shard import Step, is_because
from llavar.corpus.retry import PASSING
from llavar.corpus.shards import Corpus, RunSettings, RunSummary
from llavar.records import Reject

ONCE = RunSettings(shard_rows=8, workers=1)
AGAIN = RunSettings(shard_rows=8, workers=1, retry=PASSING)


def traced(trace: Path) -> list[str]:
    """What was computed item by item since the last look."""
    lines = trace.read_text().splitlines() if trace.exists() else []
    trace.write_text("")
    return [line for line in lines if not line.startswith("whole")]


def run(root: Path, stages: ModuleType, settings: RunSettings, on_step: Any = None, **row: Any) -> RunSummary:
    row.setdefault("time_limit", None)
    chain = [stages.Row(**row), stages.Many(), stages.Whole()]
    return Corpus(root).run(stages.Numbers(count=24), chain, settings=settings, on_step=on_step)


def reasons(root: Path, stage: str = "row") -> Counter[str]:
    return Counter(one.reject.reason for shard in Corpus(root).rejected(stage) for one in shard)


def test_without_being_asked_for_nothing_is_tried_again(tmp_path: Path, stages: ModuleType, trace: Path):
    run(tmp_path, stages, ONCE, fails="5")
    traced(trace)
    run(tmp_path, stages, ONCE)
    assert traced(trace) == []
    assert reasons(tmp_path) == {"the stage failed on it": 1, "ends in 3": 3}


def test_only_what_may_pass_is_tried_again_and_all_ends_as_if_it_had_worked_at_once(
    tmp_path: Path, stages: ModuleType, trace: Path
):
    run(tmp_path / "a", stages, ONCE, fails="12")
    traced(trace)
    run(tmp_path / "a", stages, AGAIN)
    assert traced(trace) == ["row n12", "many n12"]
    run(tmp_path / "b", stages, ONCE)
    assert stages.digest(tmp_path / "a") == stages.digest(tmp_path / "b")
    assert not (tmp_path / "a" / "reuse").exists()


def test_what_fails_again_stays_left_out(tmp_path: Path, stages: ModuleType, trace: Path):
    run(tmp_path, stages, ONCE, fails="12")
    before = stages.digest(tmp_path)
    traced(trace)
    for _ in range(2):
        run(tmp_path, stages, AGAIN, fails="12")
        assert traced(trace) == ["row n12"]
        assert stages.digest(tmp_path) == before


def test_a_raised_time_limit_lets_a_slow_item_through(tmp_path: Path, stages: ModuleType, trace: Path):
    run(tmp_path, stages, ONCE, hangs="5", time_limit=1.0)
    assert reasons(tmp_path)["it took longer than the time limit"] == 1
    traced(trace)
    run(tmp_path, stages, AGAIN, time_limit=60.0)
    assert traced(trace) == ["row n5", "many n5"]
    assert "it took longer than the time limit" not in reasons(tmp_path)


def stopping(stage: str, at: int) -> Any:
    def stop(step: Step) -> None:
        if step.stage == stage and step.done == at:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize(("stage", "at"), [("row", 20), ("row", 22), ("many", 18)])
def test_stopped_in_the_middle_the_same_command_goes_on(
    stage: str, at: int, tmp_path: Path, stages: ModuleType, trace: Path
):
    """The second shard: what is taken over, what was tried again, and the stage behind it."""
    run(tmp_path / "a", stages, ONCE, fails="12", time_limit=20.0)
    traced(trace)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", stages, AGAIN, stopping(stage, at), time_limit=20.0)
    run(tmp_path / "a", stages, AGAIN, time_limit=20.0)
    assert traced(trace) == ["row n12", "many n12"]
    run(tmp_path / "b", stages, ONCE)
    assert stages.digest(tmp_path / "a") == stages.digest(tmp_path / "b")


def test_what_a_stopped_run_had_written_down_is_tried_again_as_well(
    tmp_path: Path, stages: ModuleType, trace: Path
):
    """The shard is not done: its outcomes lie in a journal."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stages, ONCE, stopping("row", 5), fails="1", time_limit=20.0)
    traced(trace)
    run(tmp_path, stages, AGAIN, time_limit=20.0)
    assert traced(trace).count("row n1") == 1
    assert "the stage failed on it" not in reasons(tmp_path)


def test_a_row_that_is_missing_with_a_note_counts_as_left_out():
    note = Reject(id="a", stage="teach", reason="the endpoint gave no reply")
    item = Item(id="a", origin=Origin(source="s"), notes=(note,))
    assert is_because(item, "teach", PASSING)
    assert not is_because(item, "pairs", PASSING)
    assert not is_because(Reject(id="a", stage="teach", reason="the teacher refused"), "teach", PASSING)


# ------------------------------------------------------------------------------------------ the command


class Moody(http.server.SimpleHTTPRequestHandler):
    """Too busy for the second picture, at first."""

    moods: ClassVar[list[str]] = []
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path in self.moods:
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    for width in (60, 61):
        Image.new("RGB", (width, 50), (width, 0, 0)).save(tmp_path / "web" / f"{width}.png")
    Moody.moods[:], Moody.asked[:] = ["/61.png"], []
    served = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Moody, directory=str(tmp_path / "web"))
    )
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def test_the_command_fetches_what_a_busy_server_had_refused_and_writes_products_anew(
    server: str, tmp_path: Path, engines: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rapidocr, "factory", lambda models, languages: engines.FakeEngine)
    urls = [f"{server}/{name}.png" for name in ("60", "61", "gone")]
    (tmp_path / "urls.json").write_text(json.dumps([{"URL": url} for url in urls]))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "source: {tables: [urls.json]}\nfetch: {attempts: 1, allow_private: true}\nworkers: 1\nselect: null\n"
        "layout: {min_height: 0}\n"
    )
    command = ["corpus", "run", str(recipe), "--out", str(tmp_path / "corpus")]
    rows = tmp_path / "corpus" / "products" / "stage1.json"
    assert main(command) == 0
    assert len(json.loads(rows.read_text())) == 1
    assert reasons(tmp_path / "corpus", "fetch") == {
        "it cannot be fetched": 1,
        "it cannot be fetched at present": 1,
    }
    Moody.moods.clear()
    Moody.asked.clear()
    assert main(command) == 0
    assert Moody.asked == []
    assert main([*command, "--retry"]) == 0
    assert Moody.asked == ["/61.png"]
    assert len(json.loads(rows.read_text())) == 2
