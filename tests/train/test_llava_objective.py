"""Both stages on a tiny Llava model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llavar import chat
from llavar.data import collate as collating
from llavar.data import feed as feeds
from llavar.data.encode import encode
from llavar.data.vision import FeatureStore
from llavar.errors import ConfigError
from llavar.models import loss as losses
from llavar.models import projector as projectors
from llavar.models._hf import build_llava, set_projector
from llavar.models.shape import LlavaShape, ProjectorLayout, TextShape, VisionShape
from llavar.models.tokenizer import nano_tokenizer
from llavar.records import Conversation, Encoded, Example
from llavar.train import llava
from llavar.train.config import LoopConfig, PartConfig
from llavar.train.llava import DECODER, PROJECTOR, TOWER, FeedConfig, InstructionObjective, parts_of
from llavar.train.loop import fit

NANO = nano_tokenizer()
SHAPE = LlavaShape(
    vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
    text=TextShape(
        vocab=NANO.vocab_size, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=512
    ),
    image_token_id=NANO.image_patch_id,
    vision_feature_layer=-1,
)
WORDS = ("STOP", "GO", "EXIT", "OPEN 24 h", "Mind the gap", "NO", "Sale 50%")


class Noise:
    """A picture of noise for each name."""

    is_features = False

    def get(self, names: Sequence[str]) -> Tensor:
        seeds = (sum(map(ord, name)) for name in names)
        return torch.stack(
            [torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(s)) for s in seeds]
        )


def row(number: int, *, pictures: int = 1) -> Encoded:
    tags = "<image>\n" * pictures
    text = WORDS[number % len(WORDS)]
    example = Example(
        id=str(number),
        images=tuple(f"{number}-{n}.png" for n in range(pictures)),
        conversation=Conversation.of(f"{tags}Read number {number}.", text, "Again?", text.lower()),
    )
    return encode(example, NANO, chat.get("llava_v1"), image_tokens=4)


ROWS = [row(number) for number in range(14)]


def objective(
    rows: Sequence[Encoded] = ROWS, feed: FeedConfig | None = None, **changes: Any
) -> InstructionObjective:
    model = build_llava(replace(SHAPE, **changes), seed=2)
    return InstructionObjective(
        model, rows, Noise(), feed or FeedConfig(batch=2, parts=2, capacity=256), pad_id=0
    )


def config(*parts: str, **changes: Any) -> LoopConfig:
    named = {part: PartConfig(lr=2e-3) for part in parts}
    return LoopConfig(**({"steps": 3, "parts": named, "log_every": 1} | changes))


def changed_by(trained: InstructionObjective, settings: LoopConfig, out: Path) -> set[str]:
    before = {name: p.detach().clone() for name, p in trained.model.named_parameters()}
    fit(trained, settings, out)
    return {name for name, p in trained.model.named_parameters() if not torch.equal(p, before[name])}


LINEAR_1 = {f"model.multi_modal_projector.linear_1.{name}" for name in ("weight", "bias")}


def test_stage_1_changes_the_projector_alone(tmp_path: Path):
    trained = objective()
    assert changed_by(trained, config(PROJECTOR), tmp_path) == LINEAR_1
    projector = trained.model.model.multi_modal_projector
    assert torch.equal(projector.linear_2.weight, torch.eye(64))
    assert not projector.linear_2.bias.any()
    assert [name for name, p in trained.model.named_parameters() if p.requires_grad] == sorted(
        LINEAR_1, reverse=True
    )


def test_stage_2_changes_projector_and_decoder_but_not_the_tower(tmp_path: Path):
    trained = objective()
    changed = changed_by(trained, config(PROJECTOR, DECODER), tmp_path)
    decoder = {name for name, _ in trained.model.named_parameters() if "language_model" in name}
    assert changed == LINEAR_1 | decoder | {"lm_head.weight"}


def test_parts_are_all_parameters_but_the_frozen_identity():
    model = objective().model
    parts = parts_of(model)
    assert parts.keys() == {TOWER, PROJECTOR, DECODER}
    counted = Counter(id(p) for part in parts.values() for p in part.values())
    assert set(counted.values()) == {1}
    missing = {name for name, p in model.named_parameters() if id(p) not in counted}
    assert missing == {f"model.multi_modal_projector.linear_2.{name}" for name in ("weight", "bias")}


def test_a_projector_of_two_layers_trains_as_a_whole(tmp_path: Path):
    changed = changed_by(objective(projector=ProjectorLayout.MLP), config(PROJECTOR), tmp_path)
    assert changed == LINEAR_1 | {f"model.multi_modal_projector.linear_2.{n}" for n in ("weight", "bias")}


def test_a_folded_projector_is_refused():
    model = objective().model
    one = model.model.multi_modal_projector.linear_1
    linear = projectors.Linear(weight=one.weight.detach().clone(), bias=one.bias.detach().clone())
    set_projector(model, ProjectorLayout.FOLD, linear)
    with pytest.raises(ConfigError, match="a folded projector cannot be trained; bring it into the identity"):
        parts_of(model)


def test_a_head_that_is_tied_is_trained_once():
    model = objective().model
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.language_model.embed_tokens.weight
    decoder = parts_of(model)[DECODER]
    assert len({id(p) for p in decoder.values()}) == len(decoder)


def test_a_run_that_was_interrupted_goes_on_bit_identically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = config(PROJECTOR, DECODER, steps=5, log_every=2)
    feed = FeedConfig(batch=4, parts=2, capacity=256, packing=False)
    straight, stopped, again = (objective(feed=feed) for _ in range(3))
    fit(straight, settings, tmp_path / "straight")
    compute, calls = llava.answer_loss, iter(range(99))

    def struck(model: Any, batch: Any) -> Tensor:
        if next(calls) == 7:  # the second of two micro-batches in the fourth step
            raise KeyboardInterrupt
        return compute(model, batch)

    monkeypatch.setattr(llava, "answer_loss", struck)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, settings, tmp_path / "out")
    monkeypatch.undo()
    fitted = fit(again, settings, tmp_path / "out")
    assert fitted.resumed_at == 3
    one, other = straight.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    logs = [fit(o, settings, tmp_path / n).ticks for o, n in ((straight, "straight"), (again, "out"))]
    assert [(t.step, t.loss, t.grad_norm) for t in logs[0]] == [
        (t.step, t.loss, t.grad_norm) for t in logs[1]
    ]


def test_it_learns_its_rows_by_heart(tmp_path: Path):
    trained = objective(ROWS[:4], FeedConfig(batch=1, capacity=512))
    ticks = fit(trained, config(PROJECTOR, DECODER, steps=30, warmup=0.0), tmp_path).ticks
    assert ticks[-1].loss < 0.75 * ticks[0].loss


def ids(trained: InstructionObjective, step: int) -> list[list[int]]:
    """The rows of a step by their number, for each micro-batch."""
    found: list[list[int]] = []
    for batch in trained.batches(step):
        # Packs are laid out row after row, each from position 0; padding is a row of <unk>.
        texts = [NANO.decode(line.tolist(), skip_special=False) for line in batch.ids]
        found.append([int(piece.split(".")[0]) for t in texts for piece in t.split("Read number ")[1:]])
    return found


def epoch(trained: InstructionObjective, number: int) -> list[int]:
    """Row numbers of one epoch of ``ROWS`` one by one, two a step."""
    steps = len(ROWS) // 2
    return list(
        chain.from_iterable(chain.from_iterable(ids(trained, number * steps + s) for s in range(steps)))
    )


SINGLE = FeedConfig(batch=2, parts=1, capacity=256, packing=False)


def test_every_epoch_holds_every_row_once_in_another_order():
    trained = objective(feed=SINGLE)
    orders = [epoch(trained, number) for number in range(4)]
    for order in orders:
        assert sorted(order) == list(range(14))
    assert len({tuple(order) for order in orders}) == 4


def test_packed_epochs_hold_every_row_once_too():
    trained = objective(feed=FeedConfig(batch=2, parts=2, capacity=256))
    seen: Counter[int] = Counter()
    step = 0
    while not seen or min(seen[n] for n in range(14)) < 3:
        seen.update(chain.from_iterable(ids(trained, step)))
        step += 1
    assert set(seen.values()) == {3}


def test_batches_depend_on_the_step_and_the_seed_alone():
    one, other = objective(feed=SINGLE), objective(feed=SINGLE)
    forward = {step: ids(one, step) for step in range(24)}
    assert {step: ids(other, step) for step in reversed(range(24))} == forward
    torch.manual_seed(99)
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(one.batches(5), other.batches(5), strict=True))
    seeded = objective(feed=replace(SINGLE, seed=1))
    assert {step: ids(seeded, step) for step in range(7)} != {step: forward[step] for step in range(7)}


def test_an_epoch_is_planned_once(monkeypatch: pytest.MonkeyPatch):
    epochs: list[int] = []
    order = feeds.order

    def counted(*args: Any, **options: Any) -> Any:
        epochs.append(options["epoch"])
        return order(*args, **options)

    monkeypatch.setattr(feeds, "order", counted)
    trained = objective(feed=SINGLE)
    for step in range(21):
        trained.batches(step)
    assert epochs == [0, 1, 2]
    # A run that goes on has to know how long the epochs before were.
    resumed = objective(feed=SINGLE)
    assert ids(resumed, 17) == ids(trained, 17)


def test_micro_batches_hold_rows_of_like_length():
    trained = objective(feed=FeedConfig(batch=8, parts=3, capacity=256, packing=False))
    batches = trained.batches(0)
    assert [batch.rows for batch in batches] == [3, 3, 2]
    lengths = [[int((line != 0).sum()) for line in batch.ids] for batch in batches]
    assert max(lengths[0]) <= min(lengths[1])
    assert max(lengths[1]) <= min(lengths[2])
    assert all(batch.ids.shape[1] % 8 == 0 for batch in batches)


@pytest.mark.parametrize("packing", [True, False])
def test_the_loss_of_an_epoch_is_the_same_however_it_is_batched(packing: bool):
    trained = objective(feed=FeedConfig(batch=3, parts=2, capacity=256, packing=packing))
    alone = objective(feed=FeedConfig(batch=1, capacity=256, packing=False))
    with torch.no_grad():
        expected = sum(alone.loss(b).item() for step in range(14) for b in alone.batches(step))
        total, rows, step = 0.0, 0, 0
        while rows < 14:
            batches = trained.batches(step)
            total += sum(trained.loss(batch).item() for batch in batches)
            rows, step = rows + sum(batch.rows for batch in batches), step + 1
    assert rows == 14
    assert total == pytest.approx(expected, rel=1e-6)


def test_sizes_count_samples_tokens_and_targets():
    trained = objective(feed=SINGLE)
    batch = trained.batches(0)[0]
    size = trained.size(batch)
    assert (size.samples, size.tokens, size.supervised) == (2, batch.ids.numel(), batch.supervised)


def test_features_from_a_store_train_like_pictures_do():
    from_pictures, held = objective(feed=SINGLE), objective(feed=SINGLE)
    store = FeatureStore(lambda pixels: losses.features(held.model, pixels), Noise())
    store.add([name for item in ROWS for name in item.images])
    held.feed.vision = store
    with torch.no_grad():
        for step in range(3):
            one, other = from_pictures.batches(step)[0], held.batches(step)[0]
            assert other.is_features
            assert held.loss(other).item() == pytest.approx(from_pictures.loss(one).item(), rel=1e-3)


def test_rows_without_pictures_pass_through_stage_1(tmp_path: Path):
    # Their loss does not depend on the projector at all, which torch refuses to differentiate.
    mixed = [row(0), row(1, pictures=0), row(2, pictures=0), row(3, pictures=2)]
    trained = objective(mixed, FeedConfig(batch=4, parts=4, capacity=256, packing=False))
    assert changed_by(trained, config(PROJECTOR), tmp_path) == LINEAR_1


def test_batches_go_where_the_model_is(monkeypatch: pytest.MonkeyPatch):
    trained = objective(feed=SINGLE)
    batch = trained.batches(0)[0]
    elsewhere = SimpleNamespace(weight=nn.Parameter(torch.zeros(1, device="meta")))
    monkeypatch.setattr(trained.model, "get_input_embeddings", lambda: elsewhere)
    given: list[collating.Batch] = []
    monkeypatch.setattr(llava, "answer_loss", lambda model, b: given.append(b) or torch.zeros(()))
    trained.loss(batch)
    assert given[0].ids.device.type == "meta"


def test_without_rows_there_is_nothing_to_train_on():
    with pytest.raises(ConfigError, match="no row to train on; the rejects say why"):
        objective([])


def test_a_row_longer_than_a_pack_is_an_error(tmp_path: Path):
    trained = objective(feed=FeedConfig(batch=1, capacity=30))
    with pytest.raises(ConfigError, match="tokens and a pack holds 30; raise the capacity"):
        fit(trained, config(PROJECTOR), tmp_path)


def test_the_plan_of_an_epoch_counts_what_its_batches_hold():
    trained = objective(feed=FeedConfig(batch=5, parts=2, capacity=256))
    planned = trained.epoch_plan()
    batches = [batch for step in range(planned.steps) for batch in trained.batches(step)]
    assert (planned.steps, planned.rows, planned.pictures) == (3, 14, 14)
    assert planned.packs == sum(len(batch.ids) for batch in batches)
    assert planned.tokens == sum(batch.useful for batch in batches) == sum(map(len, ROWS))
    assert planned.padded == sum(batch.ids.numel() for batch in batches)
    assert planned.padding == pytest.approx(1 - planned.tokens / planned.padded)
    step, number = planned.longest
    assert planned.most == max(batch.ids.numel() for batch in batches)
    assert trained.batches(step)[number].ids.numel() == planned.most


@pytest.mark.parametrize("epoch", [0, 2])
def test_packing_changes_the_packs_of_a_step_and_not_its_rows(epoch: int):
    feeds = [FeedConfig(batch=4, capacity=256, packing=packing) for packing in (True, False)]
    packed, padded = (objective(feed=feed) for feed in feeds)
    for step in range(epoch * 4, epoch * 4 + 4):
        rows = [sorted(chain.from_iterable(chain.from_iterable(o.layout(step)))) for o in (packed, padded)]
        assert rows[0] == rows[1]


def test_without_sorting_rows_stay_in_the_order_of_the_epoch():
    feed = FeedConfig(batch=8, parts=3, capacity=256, packing=False, like_lengths=False)
    trained, sorted_ = objective(feed=feed), objective(feed=replace(feed, like_lengths=True))
    own, other = (list(chain.from_iterable(o.layout(0))) for o in (trained, sorted_))
    assert sorted(own) == sorted(other)
    assert own != other
    assert [len(part) for part in trained.layout(0)] == [3, 3, 2]


def test_costs_are_of_useful_tokens_and_pictures():
    trained = objective(feed=SINGLE)
    trained.cost = llava.Cost(token=2.0, picture=100.0)
    batch = trained.batches(0)[0]
    assert trained.size(batch).flops == 2.0 * batch.useful + 200.0
