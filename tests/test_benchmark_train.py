"""The benchmark of training: what is trained on, what is made of figures, and that trainers learn alike."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llavar import images
from llavar.data.feed import Feed, FeedConfig
from llavar.images import CLIP, WHOLE, Transform
from llavar.models import _hf as hf
from llavar.models import loss as losses
from llavar.records import IGNORE, Encoded

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def neighbours() -> Iterator[None]:
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def rows(neighbours: None) -> ModuleType:
    return importlib.import_module("train_rows")


@pytest.fixture(scope="module")
def train(neighbours: None) -> ModuleType:
    return importlib.import_module("train")


@pytest.fixture(scope="module")
def figures_train(neighbours: None) -> ModuleType:
    return importlib.import_module("figures_train")


# What is trained on.


@pytest.mark.parametrize(
    ("stage", "low", "high"),
    [(1, 640, 680), (2, 850, 950)],
)
def test_rows_are_as_long_as_those_of_the_stages(rows: ModuleType, stage: int, low: int, high: int):
    shape = rows.shape_of("small")
    drawn = rows.draw_rows(rows.load_of("images", stage), 40, shape)
    assert shape.image_tokens == 576
    assert low < np.mean([len(row.ids) for row in drawn]) < high
    assert max(len(row.ids) for row in drawn) <= 2048
    for row in drawn[:20]:
        assert row.image
        assert row.ids.count(shape.image_token_id) == 576
        learned = [label for label in row.labels if label != IGNORE]
        assert len(row.ids) == len(row.labels)
        assert tuple(learned) == row.ids[-len(learned) :]
        assert shape.image_token_id not in learned


def test_of_the_mixed_load_three_rows_in_ten_are_text(rows: ModuleType):
    shape = rows.shape_of("small")
    drawn = rows.draw_rows(rows.load_of("mixed", 2), 600, shape)
    assert sum(not row.image for row in drawn) == 180
    assert all((row.image == "") == (shape.image_token_id not in row.ids) for row in drawn)


@pytest.mark.parametrize("name", ["small", "7b", "13b"])
def test_the_head_is_a_small_part_of_the_arithmetic(rows: ModuleType, name: str):
    assert 0 < rows.head_share(rows.shape_of(name)) <= 0.03


def test_stock_trainers_get_the_rows_in_the_order_of_our_feed(rows: ModuleType):
    drawn = rows.draw_rows(rows.load_of("mixed", 2), 24, rows.shape_of("test"))
    encoded = [Encoded(id=str(n), ids=row.ids, labels=row.labels) for n, row in enumerate(drawn)]
    config = FeedConfig(batch=4, parts=2, capacity=1024, packing=True)
    feed = Feed(encoded, SimpleNamespace(is_features=False), config, pad_id=0)  # pyright: ignore[reportArgumentType]
    ordered = rows.in_order(drawn, 1024, seed=0)
    for step in range(6):
        ours = {encoded[n].ids for part in feed.layout(step) for pack in part for n in pack}
        assert ours == {row.ids for row in ordered[4 * step : 4 * step + 4]}


def test_the_model_is_a_stock_folder_whose_numbers_are_those_of_bf16(rows: ModuleType, tmp_path: Path):
    rows.write_model(rows.shape_of("test"), tmp_path / "model", dtype=torch.float32)
    model = hf.load_llava(tmp_path / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(value, value.bfloat16().float()), name
    again = tmp_path / "again"
    rows.write_model(rows.shape_of("test"), again, dtype=torch.float32)
    other = hf.load_llava(again).state_dict()
    assert all(torch.equal(value, other[name]) for name, value in model.state_dict().items())


def test_nobody_has_to_resize_the_pictures(rows: ModuleType, tmp_path: Path):
    drawn = [rows.Row(ids=(1,), labels=(1,), image="3.jpg"), rows.Row(ids=(1,), labels=(1,))]
    rows.write_pictures(drawn, tmp_path, 112)
    assert [path.name for path in tmp_path.iterdir()] == ["3.jpg"]
    (ours,) = images.view_pixels(
        tmp_path / "3.jpg", tiles=WHOLE, transform=Transform.PAD, size=112, norm=CLIP
    )
    plain = np.asarray(Image.open(tmp_path / "3.jpg"), np.float32) / 255
    normed = ((plain - CLIP.mean) / CLIP.std).transpose(2, 0, 1)
    np.testing.assert_allclose(ours, normed, atol=1e-5)


# What is made of it.


def test_useful_tokens_are_counted_apart_from_padding(train: ModuleType, rows: ModuleType):
    shape = rows.shape_of("test")
    lengths = [10, 6, 3, 3, 8, 8, 1, 1]
    drawn = [rows.Row(ids=(1,) * n, labels=(1,) * n, image="0.jpg" if n > 5 else "") for n in lengths]
    work = train.work_of(drawn, shape, 2, batch=4, micro=2)
    assert (work.useful, work.padded) == ([22, 18], [26, 18])
    other = work.of([11, 36])
    assert other.flops == pytest.approx([sum(work.flops) * 11 / 40, sum(work.flops) * 36 / 40])
    assert other.scores == pytest.approx([sum(work.scores) * 11 / 40, sum(work.scores) * 36 / 40])


@pytest.mark.parametrize(("stage", "per"), [(1, 4), (2, 6)])
def test_arithmetic_is_counted_from_shape_and_lengths(
    train: ModuleType, rows: ModuleType, stage: int, per: int
):
    shape = rows.shape_of("test")
    model = hf.build_llava(shape, seed=0)
    counts = {
        name: sum(one.numel() for one in part.parameters())
        for name, part in (
            ("tower", model.model.vision_tower),
            ("projector", model.model.multi_modal_projector),
            ("layers", model.model.language_model.layers),
            ("norm", model.model.language_model.norm),
            ("head", model.lm_head),
        )
    }
    decoder = counts["layers"] + counts["norm"] + counts["head"]
    lengths = (100, 70)
    drawn = [rows.Row(ids=(1,) * n, labels=(1,) * n, image="0.jpg" if n == 100 else "") for n in lengths]
    work = train.work_of(drawn, shape, stage, batch=2, micro=1)
    assert shape.image_tokens == 64
    picture = 2 * counts["tower"] * 65 + 4 * counts["projector"] * 64
    assert work.flops == [pytest.approx(per * decoder * 170 + picture)]
    # Two products forwards and four backwards, 2 FLOPs each, over half of all pairs, in 2 layers of 192.
    assert work.scores == [12 / 2 * (100**2 + 70**2) * 2 * 192]


def child(train: ModuleType, name: str, seconds: float, losses: tuple[float, ...]) -> Any:
    """Rounds of 1, 2 and 2 steps that took so long each."""
    steps = [
        {"seconds": seconds, "processor": 3 * seconds, "waited": 0.1 * seconds, "loss": loss}
        for loss in losses
    ]
    rounds = [{"steps": steps[a:b], "peak": 5_000_000 * b} for a, b in ((0, 1), (1, 3), (3, 5))]
    return train.Child(name=name, facts={"attention": "sdpa"}, rounds=rounds)


def test_rates_leave_the_first_round_out_and_losses_do_not(train: ModuleType):
    work = train.Work(useful=[1000, 10, 20, 30, 40], flops=[1e9] * 5, padded=[0] * 5, scores=[1e8] * 5)
    ours = train.summed(child(train, "llavar", 1.0, (3.0, 2.5, 2.0, 1.5, 1.0)), work, 1e10)
    assert ours["rates"] == [15.0, 35.0]
    assert ours["useful_tokens_a_second"] == 25.0
    assert ours["waiting_share"] == 0.1
    assert (ours["peak_mb"], ours["mfu"], ours["mfu_scores"]) == (25, 0.1, 0.11)
    assert ours["steps"] == [[1.0, 3.0, 0.1]] * 5  # the first as well
    assert ours["losses"] == [3.0, 2.5, 2.0, 1.5, 1.0]
    slow = train.summed(child(train, "trl", 4.0, (3.0, 2.5, 2.0, 1.5, 1.0)), work, 0.0)
    near = train.summed(child(train, "trainer", 2.0, (3.0, 2.5, 2.0, 1.515, 1.0)), work, 0.0)
    found = train.beside({"llavar": ours, "trl": slow, "trainer": near, "factory": {"left_out": "why"}})
    assert (found["best_peer"], found["of_best"], found["ratios"]) == ("trainer", 2.0, [2.0, 2.0])
    assert found["losses_apart"] == {"trl": 0.0, "trainer": 0.01}
    assert found["processor_ratio"] == 2.0
    assert found["losses_agree"]
    assert "mfu" not in slow


def test_losses_that_part_are_said(train: ModuleType):
    work = train.Work(useful=[1] * 5, flops=[1.0] * 5, padded=[1] * 5)
    one, other = (
        train.summed(child(train, "x", 1.0, losses), work, 0.0)
        for losses in ((3.0, 2.5, 2.0, 1.5, 1.0), (3.0, 2.5, 2.0, 1.6, 1.0))
    )
    assert not train.beside({"llavar": one, "trl": other})["losses_agree"]
    assert train.beside({"llavar": one}) == train.beside({"trl": other}) == {}


def test_a_trainer_whose_steps_hold_other_rows_is_judged_by_its_own(train: ModuleType):
    work = train.Work(useful=[10] * 5, flops=[1.0] * 5, padded=[10] * 5)
    ours = train.summed(child(train, "llavar", 1.0, (3.0, 2.5, 2.0, 1.5, 1.0)), work, 0.0)
    other = child(train, "factory-packed", 1.0, (3.3, 9.0, 9.0, 9.0, 9.0))
    other.facts |= {"useful": [30] * 5, "first_loss_of_rows": 3.0}
    packed = train.summed(other, work, 0.0)
    assert packed["rates"] == [30.0, 30.0]
    assert "useful" not in packed
    found = train.beside({"llavar": ours, "factory-packed": packed})
    assert (found["of_best"], found["processor_ratio"]) == (0.333, 0.333)
    assert found["losses_apart"] == {"factory-packed": 0.1}
    assert not found["losses_agree"]


def test_whoever_begins_a_round_ends_the_next(train: ModuleType):
    children = [train.Child(name=name) for name in "abc"]
    orders = ["".join(one.name for one in train.turned(children, number)) for number in range(4)]
    assert orders == ["abc", "bca", "cab", "abc"]
    assert train.turned([], 3) == []


def test_rows_are_found_again_in_a_pack_of_llama_factory(neighbours: None):
    peers = importlib.import_module("train_peers")
    pack = {
        "input_ids": [5, 9, 9, 6, 5, 6, 7, 0, 0],
        "labels": [-100, -100, -100, 6, -100, 6, 7, -100, -100],
        "position_ids": [0, 1, 2, 3, 0, 1, 2, 0, 0],
        "images": ["a.jpg"],
    }
    assert peers.rows_in(pack, 9) == [
        {"input_ids": [5, 9, 9, 6], "labels": [-100, -100, -100, 6], "images": ["a.jpg"]},
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "images": []},
    ]


def test_a_trainer_that_fails_is_left_out_with_its_last_words(train: ModuleType, tmp_path: Path):
    settings = {"threads": 1, "device": "cpu"}
    script = "import sys; print('one', file=sys.stderr); print('the reason', file=sys.stderr); sys.exit(3)"
    failed = train.start("bad", [sys.executable, "-c", script], settings, tmp_path)
    failed.go()
    failed.end()
    assert failed.left_out == "it ended with 3: the reason"
    assert train.summed(failed, train.Work(useful=[], flops=[], padded=[]), 0.0) == {
        "left_out": "it ended with 3: the reason"
    }


def test_an_environment_that_is_not_there_is_named(train: ModuleType, tmp_path: Path):
    asked = SimpleNamespace(trl=tmp_path / "no", factory=Path(sys.executable))
    found = train.commands(asked)
    assert "make peers" in found["trainer"][2]
    assert "make peers" in found["trl"][2]
    assert found["factory"][2] == found["factory-packed"][2] == found["llavar"][2] == ""


def test_the_recorded_command_names_no_place(train: ModuleType):
    given = ["--rounds", "4", "--trl", "a/b", "--only", "llavar", "trl", "--out", "c"]
    assert train._command(given) == "python benchmarks/train.py --rounds 4 --only llavar trl"


def test_a_child_waits_for_each_round_and_keeps_libraries_off_its_line():
    script = f"""
import sys; sys.path.insert(0, {str(FOLDER)!r})
from train_child import Rounds
rounds = Rounds({{"warm": 1, "steps": 2, "rounds": 2, "device": "cpu"}})
print("a library speaks")
rounds.begin(attention="sdpa")
for step in range(rounds.total):
    rounds.step(float(step), 0.0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input="\n\n\n", capture_output=True, text=True, check=True
    )
    ready, *said = (json.loads(line) for line in io.StringIO(done.stdout))
    assert ready == {"ready": {"attention": "sdpa"}}
    assert [[step["loss"] for step in one["steps"]] for one in said] == [[0.0], [1.0, 2.0], [3.0, 4.0]]
    assert all(one["peak"] > 0 for one in said)
    assert "a library speaks" in done.stderr


def settings_of(folder: Path, **more: Any) -> dict[str, Any]:
    files = {"model": "model", "rows": "rows.json", "ordered": "ordered.json", "pictures": "pictures"}
    found = {name: str(folder / path) for name, path in files.items()}
    found |= {"device": "cpu", "precision": "fp32", "attention": "varlen", "recompute": "none"}
    numbers = {"stage": 2, "batch": 4, "micro_batch": 2, "peer_micro_batch": 2, "max_length": 512, "lr": 1e-3}
    numbers |= {"threads": 1, "workers": 0, "warm": 1, "steps": 1, "rounds": 1, "seed": 0}
    return {**found, **numbers, "compiled": False, "liger": False, **more}


def prepared(rows: ModuleType, folder: Path) -> None:
    """A model, eight rows with and without pictures, and the pictures."""
    shape = rows.shape_of("test")
    rows.write_model(shape, folder / "model", dtype=torch.float32)
    drawn = rows.draw_rows(replace(rows.load_of("mixed", 1), text_only=0.4), 8, shape, longest=512)
    assert {bool(row.image) for row in drawn} == {True, False}
    rows.write_rows(drawn, folder / "rows.json")
    rows.write_rows(rows.in_order(drawn, 512, seed=0), folder / "ordered.json")
    rows.write_pictures(drawn, folder / "pictures", shape.vision.image_size)


def test_a_stock_trainer_and_ours_learn_the_same(train: ModuleType, rows: ModuleType, tmp_path: Path):
    pytest.importorskip("accelerate")
    prepared(rows, tmp_path)
    ours, peers = ([sys.executable, str(FOLDER / name)] for name in ("train_ours.py", "train_peers.py"))
    wanted = {"llavar": (ours, {"variant": ""}, ""), "trainer": (peers, {"peer": "trainer"}, "")}
    children = train.together(wanted, settings_of(tmp_path), tmp_path)
    work = train.Work(useful=[1, 1], flops=[1.0, 1.0], padded=[1, 1])
    found = {name: train.summed(one, work, 0.0) for name, one in children.items()}
    whole, stock = (found[name]["losses"] for name in wanted)
    assert whole[1] < whole[0]
    assert whole == pytest.approx(stock, rel=1e-4)
    assert (found["llavar"]["attention"], found["trainer"]["attention"]) == ("varlen", "sdpa")


def test_no_gain_that_is_taken_away_changes_the_loss(
    rows: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ours = importlib.import_module("train_ours")
    monkeypatch.setattr(losses, "tower_states", losses.tower_states)  # put back afterwards
    prepared(rows, tmp_path)
    found: dict[str, float] = {}
    for variant in ours.VARIANTS:
        settings = settings_of(tmp_path)
        objective = ours.objective_of(settings, variant, ours.stage_of(settings, variant))
        found[variant] = sum(objective.loss(batch).item() for batch in objective.batches(0))
        assert objective.waited > 0
    assert set(found.values()) != {found[""]}
    assert found == pytest.approx(dict.fromkeys(found, found[""]), rel=1e-5)


# The page.


def trainer_figures(rate: float, **more: Any) -> dict[str, Any]:
    return {
        "useful_tokens_a_second": rate,
        "rates": [rate, rate + 2],
        "seconds_a_step": 1.5,
        "waiting_share": 0.001,
        "peak_mb": 1500,
        "versions": {"transformers": "5"},
        "losses": [1.0],
        **more,
    }


def load_figures(of_best: float, wait: float = 0.001) -> dict[str, Any]:
    names = ("precision", "threads", "workers", "batch", "max_length", "rounds", "steps", "stage")
    return {
        "machine": {"cpu": "c", "cores": 2, "python": "3", "load_before": 0.1},
        "command": "python benchmarks/train.py",
        "settings": {**dict.fromkeys(names, 1), "micro_batch": 2, "peer_micro_batch": 4, "precision": "bf16"},
        "parameters": {"tower": 2e6, "projector": 1e5, "decoder": 26e6},
        "head_share": 0.02,
        "useful_tokens_a_row": 896.4,
        "padded_share_of_stock": 0.15,
        "trainers": {
            "llavar": trainer_figures(130.0, waiting_share=wait),
            "trainer": trainer_figures(100.0),
            "factory": {"left_out": "it is not there"},
        },
        "best_peer": "trainer",
        "of_best": of_best,
        "processor_ratio": of_best,
        "ratios": [of_best, of_best],
        "losses_apart": {"trainer": 0.002},
        "losses_agree": True,
    }


def test_goals_that_are_missed_are_said(figures_train: ModuleType):
    document = {"images": load_figures(1.3), "mixed": load_figures(1.9, wait=0.03)}
    text = figures_train.train(document)
    assert (
        "`images`: 1.30 times the best peer (trainer; rounds 1.30 to 1.30); the goal was 1.3 times, met"
        in text
    )
    assert "`mixed`: 1.90 times the best peer" in text
    assert "the goal was 2 times, **missed**" in text
    assert "ours waits 3.0% of the time for data; the goal was below 2 %, **missed**" in text
    assert "factory: not run: it is not there" in text
    assert "| `Trainer`, padded (transformers 5) | 100 (100 to 102) | 1.50 |" in text
    assert "computes on one core\nand has one process for its batches" in text
    assert "Not run: a GPU." in text


@pytest.mark.parametrize(("first", "said"), [(6.0001, "are kept apart"), (6.2, "**see each other**")])
def test_whether_rows_of_a_peers_packs_see_each_other_is_said(
    figures_train: ModuleType, first: float, said: str
):
    document = load_figures(1.3)
    packed = {
        "losses": [first, 5.0],
        "first_loss_of_rows": 6.0,
        "packs": 4,
        "versions": {"llamafactory": "1"},
    }
    document["trainers"]["factory-packed"] = trainer_figures(90.0) | packed
    text = figures_train.train({"images": document})
    assert (
        f"Rows {said}: its first loss is {first:.4f}, and that of the same rows one at a time 6.0000." in text
    )
    assert "| LLaMA-Factory, `neat_packing` (llamafactory 1) | 90 (90 to 92) |" in text


def test_every_gain_that_was_taken_away_has_its_line(figures_train: ModuleType, train: ModuleType):
    trainers = {"llavar": trainer_figures(100.0, profile={"mm": 0.64, "copy_": 0.03})}
    trainers |= {
        name: trainer_figures(80.0, gain=1.25, gains=[1.2, 1.3], processor_gain=1.2)
        for name in (*train.WITHOUT, "trainer-1")
    }
    text = figures_train.train(
        {
            "images": load_figures(1.0),
            "without": {
                "load": "images",
                "trainers": trainers,
                "machine": {"load_before": 0.1},
                "settings": {"steps": 1},
            },
        }
    )
    assert text.count("| 1.25 (1.20 to 1.30) | 1.20 | 1.50 GB |") == len(train.WITHOUT) + 1
    assert "2 rounds of one step that count" in text
    assert "forwards and backwards): `mm` 64%, `copy_` 3%." in text
    assert figures_train.train({}) == ""
