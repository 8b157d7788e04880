"""One arm: both stages on given rows, resumed bit by bit, refused where the rows are others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from llavar.data.vision import FeatureStore
from llavar.errors import ConfigError, ModelError, NotFoundError
from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models.loss import features
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.models.tokenizer import load_tokenizer, nano_tokenizer
from llavar.recipes.nano import Stage
from llavar.records import Conversation, Example
from llavar.study import arms
from llavar.study.arms import Arm, ArmRows, Plan, encode_rows, train_arm, train_arms
from llavar.train.config import LoopConfig, PartConfig
from llavar.train.llava import DECODER, PROJECTOR, FeedConfig
from llavar.train.metrics import Tick

STEPS = (3, 4)


class Noise:
    """Pixels that depend on the name alone."""

    is_features = False

    def get(self, names: Sequence[str]) -> Tensor:
        return torch.stack(
            [torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(len(name))) for name in names]
        )


class Sent:
    """A function that crosses over to a process as its source, since the tests are no module there."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __call__(self, *_given: object) -> None:
        raise AssertionError("this is for another process")

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return eval, (self.source,)


DIES = Sent("lambda *_: __import__('os')._exit(3)")
QUITS = Sent("lambda *_: (__import__('time').sleep(0.3), __import__('os')._exit(4))")
LEAVES = Sent(
    "lambda name, arm: (arm.model.parent / 'then.txt').write_text("
    "f'{name} {arm.stage2.steps} ' + str(__import__('os').getpid()))"
)


def rows(count: int, answer: str = "yes") -> ArmRows:
    made = tuple(
        Example(
            id=str(i),
            images=("x" * (i + 1),),
            conversation=Conversation.of("<image>\nWhat?", f"{answer} {i}"),
        )
        for i in range(count)
    )
    return ArmRows(stage1=made, stage2=made[::-1])


def stages() -> tuple[Stage, Stage]:
    feed = FeedConfig(batch=4, parts=2, capacity=512, packing=False)
    first = {PROJECTOR: PartConfig(lr=1e-2)}
    second = {PROJECTOR: PartConfig(lr=1e-2), DECODER: PartConfig(lr=1e-2)}
    return (
        Stage(loop=LoopConfig(steps=STEPS[0], parts=first, log_every=1, save_every=2), feed=feed),
        Stage(loop=LoopConfig(steps=STEPS[1], parts=second, log_every=1, save_every=2), feed=feed),
    )


def tensors(folder: Path) -> dict[str, Tensor]:
    return folders.read_tensors(folders.open_weights(folder))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, tokenizer = tmp_path_factory.mktemp("base") / "base", nano_tokenizer()
    shape = LlavaShape(
        vision=VisionShape(image_size=24, patch_size=8, hidden=16, layers=2, heads=2, mlp=24),
        text=TextShape(
            vocab=tokenizer.vocab_size, hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, max_positions=512
        ),
        image_token_id=tokenizer.image_patch_id,
        vision_feature_layer=-1,
    )
    hf.save_llava(hf.build_llava(shape, seed=1), out)
    tokenizer.save(out)
    return out


@pytest.fixture(scope="module")
def store(base: Path) -> FeatureStore:
    model = hf.load_llava(base)
    made = FeatureStore(lambda pixels: features(model, pixels), Noise())
    made.add(["x" * (i + 1) for i in range(8)])
    return made


@pytest.fixture(scope="module")
def arm(base: Path, store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Arm:
    return train_arm(base, rows(8), stages(), store, tmp_path_factory.mktemp("arm"))


def test_the_parts_that_each_stage_trains(base: Path, arm: Arm):
    before, after = tensors(base), tensors(arm.model)
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"multi_modal_projector", "language_model"}
    frozen = [key for key in before if key.startswith("multi_modal_projector.linear_2")]
    assert frozen
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    (save,) = sorted((arm.model.parent / "stage1" / "checkpoints").glob("*03.pt"))
    trained = torch.load(save, weights_only=True)["weights"]
    assert {name.split("/")[0] for name in trained} == {PROJECTOR}


def test_all_steps_are_taken_and_logged(arm: Arm):
    for fitted, steps in ((arm.stage1, STEPS[0]), (arm.stage2, STEPS[1])):
        assert (fitted.steps, fitted.resumed_at) == (steps, 0)
        assert [tick.step for tick in fitted.ticks] == list(range(1, steps + 1))


def test_the_model_is_whole(arm: Arm):
    assert load_tokenizer(arm.model).template().name == "llava_v1"
    assert all(tensor.dtype == torch.float32 for tensor in tensors(arm.model).values())


@pytest.mark.parametrize("where", [(1, 2), (2, 1), (2, 4)])
def test_an_interrupted_arm_goes_on_to_the_same_weights(
    base: Path, store: FeatureStore, arm: Arm, tmp_path: Path, where: tuple[int, int]
):
    def stop(stage: int, tick: Tick) -> None:
        if (stage, tick.step) == where:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_arm(base, rows(8), stages(), store, tmp_path, on_tick=stop)
    assert not (tmp_path / "model").exists()
    seen: list[tuple[int, int]] = []
    again = train_arm(
        base, rows(8), stages(), store, tmp_path, on_tick=lambda stage, tick: seen.append((stage, tick.step))
    )
    every = [(number, step) for number, steps in enumerate(STEPS, 1) for step in range(1, steps + 1)]
    assert seen == every[every.index(where) + 1 :]
    wanted, given = tensors(arm.model), tensors(again.model)
    assert all(torch.equal(wanted[key], given[key]) for key in wanted)
    assert [t.loss for t in again.stage2.ticks] == [t.loss for t in arm.stage2.ticks]


def test_a_finished_arm_is_left_alone(base: Path, store: FeatureStore, arm: Arm):
    file = arm.model / "model.safetensors"
    before = file.stat().st_mtime_ns
    again = train_arm(base, rows(8), stages(), store, arm.model.parent)
    assert (again.stage1.resumed_at, again.stage2.resumed_at) == STEPS
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize("other", [rows(7), rows(8, "no")])
def test_other_rows_in_the_same_folder(base: Path, store: FeatureStore, arm: Arm, other: ArmRows):
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        train_arm(base, other, stages(), store, arm.model.parent)


def test_other_steps_in_the_same_folder(base: Path, store: FeatureStore, arm: Arm):
    first, second = stages()
    longer = replace(first, loop=replace(first.loop, steps=5))
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        train_arm(base, rows(8), (longer, second), store, arm.model.parent)


def test_rows_that_the_tokenizer_cannot_write():
    def row(name: str, question: str, answer: str) -> Example:
        return Example(id=name, images=("a",), conversation=Conversation.of(f"<image>\n{question}", answer))

    given = [
        row("plain", "What?", "OPEN"),
        row("question", "何?", "OPEN"),
        row("answer", "What?", "開店"),
        row("accent", "What?", "Café"),
        row("long", "What?", "x" * 2000),
        row("two pictures", "<image>", "yes"),
    ]
    encoded, rejects = encode_rows(given, nano_tokenizer(), image_tokens=144)
    assert [row.id for row in encoded] == ["plain", "question", "accent", "long"]
    assert {reject.id: reject.reason for reject in rejects} == {
        "answer": "characters that the tokenizer lacks",
        "two pictures": "image tags differ from images",
    }
    assert all(len(row) <= 1024 for row in encoded)


def plan(base: Path, given: ArmRows) -> Plan:
    return Plan(base=base, rows=given, stages=stages())


def test_arms_side_by_side_are_the_same_arms(base: Path, store: FeatureStore, arm: Arm, tmp_path: Path):
    both = {"one": plan(base, rows(8)), "seed-1/two": plan(base, rows(8, "no"))}
    heard: set[tuple[str, int]] = set()

    def stop(name: str, stage: int, tick: Tick) -> None:
        heard.add((name, stage))
        if stage == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_arms(both, store, tmp_path, on_tick=stop)
    assert {stage for _, stage in heard} == {1, 2}
    made = train_arms(both, store, tmp_path)
    assert list(made) == ["one", "seed-1/two"]
    wanted, given, other = tensors(arm.model), tensors(made["one"].model), tensors(made["seed-1/two"].model)
    assert all(torch.equal(wanted[key], given[key]) for key in wanted)
    assert not all(torch.equal(wanted[key], other[key]) for key in wanted)
    assert not list(tmp_path.glob("*.safetensors"))


def test_one_process_trains_one_arm_after_the_other(
    base: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0}, raising=False)
    three = {name: plan(base, rows(8, name)) for name in ("one", "two", "three")}
    made = train_arms(three, store, tmp_path, then=LEAVES)
    told = [(made[name].model.parent / "then.txt").read_text().split() for name in three]
    assert [words[:2] for words in told] == [["one", "4"], ["two", "4"], ["three", "4"]]
    assert len({process for _, _, process in told}) == 1
    assert told[0][2] != str(os.getpid())


def test_an_error_in_one_process_is_raised(base: Path, store: FeatureStore, tmp_path: Path):
    with pytest.raises(NotFoundError, match="no features of"):
        train_arms({"one": plan(base, rows(9))}, store, tmp_path)


def test_a_process_that_dies_is_an_error(
    base: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(arms, "_work", DIES)
    with pytest.raises(ModelError, match="the process that was to train ended with status 3"):
        train_arms({"one": plan(base, rows(8))}, store, tmp_path)


def test_a_process_that_dies_over_an_arm_names_it(base: Path, store: FeatureStore, tmp_path: Path):
    with pytest.raises(ModelError, match="the process that trains 'one' ended with status 4"):
        train_arms({"one": plan(base, rows(8))}, store, tmp_path, then=QUITS)


def test_stored_features_come_back(store: FeatureStore, tmp_path: Path):
    store.save(tmp_path / "f.safetensors")
    read = FeatureStore.load(tmp_path / "f.safetensors")
    assert torch.equal(read.get(["x", "xxx"]), store.get(["x", "xxx"]))
    with pytest.raises(NotFoundError, match="no tower"):
        read.add(["new"])
