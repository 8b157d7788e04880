"""The loss is exact: packing, padding and the answer-only head change where it is computed, not its value."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from llavar import chat
from llavar.data.collate import Batch, collate
from llavar.data.encode import encode
from llavar.errors import DataError
from llavar.models import loss as losses
from llavar.models._hf import build_llava
from llavar.models.shape import FeatureSelect, LlavaShape, TextShape, VisionShape
from llavar.models.tokenizer import nano_tokenizer
from llavar.records import IGNORE, Conversation, Encoded, Example, Pack

NANO = nano_tokenizer()
ATTENTION = ("eager", "sdpa", "varlen")


def tiny(attention: str = "sdpa", *, select: FeatureSelect = FeatureSelect.DEFAULT, layer: int = -1) -> Any:
    shape = LlavaShape(
        vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
        text=TextShape(
            vocab=NANO.vocab_size, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=512
        ),
        image_token_id=NANO.image_patch_id,
        vision_feature_layer=layer,
        select=select,
    )
    model = build_llava(shape, seed=3, attention=attention)
    with (
        torch.no_grad()
    ):  # as drawn, attention is nearly uniform and logits nearly 0: a leak could hide there
        for name, parameter in model.named_parameters():
            if "language_model" in name and parameter.ndim == 2:
                parameter.mul_(6)
    return model


def row(*texts: str, images: int = 1, image_tokens: int = 4) -> Encoded:
    example = Example(id="r", images=("p.png",) * images, conversation=Conversation.of(*texts))
    return encode(example, NANO, chat.get("llava_v1"), image_tokens=image_tokens)


ROWS = (
    row("<image>\nRead it.", "STOP"),
    row("Say one word.", "GO", "Another?", "It says: EXIT 24.", images=0),
    row("Two: <image> and <image>", "A\nB", images=2),
    row("<image>", "x"),
)


def scalar(value: Tensor) -> float:
    return value.detach().item()


def pixels(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def batch(*packs: tuple[Encoded, ...], seen: Tensor | None = None, **options: Any) -> Batch:
    count = sum(len(item.images) for rows in packs for item in rows)
    vision = (pixels(count) if count else None) if seen is None else seen
    return collate([Pack(rows=rows) for rows in packs], pad_id=0, vision=vision, **options)


def singles() -> list[Batch]:
    """Each of ``ROWS`` alone, with the pictures that are its own in the batch of all."""
    seen, start, alone = pixels(4), 0, []
    for item in ROWS:
        own = seen[start : start + len(item.images)]
        alone.append(batch((item,), seen=own) if item.images else batch((item,)))
        start += len(item.images)
    return alone


def gradients(model: Any, batches: list[Batch]) -> dict[str, Tensor]:
    """Of the mean over all supervised tokens of ``batches``."""
    model.zero_grad(set_to_none=True)
    count = sum(item.supervised for item in batches)
    for item in batches:
        (losses.answer_loss(model, item) / count).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ATTENTION)
def test_packed_rows_give_the_logits_of_single_rows(attention: str):
    model = tiny(attention)
    packed = losses.token_logits(model, batch(ROWS))[0]
    alone = torch.cat([losses.token_logits(model, item)[0] for item in singles()])
    assert packed.shape == (sum(len(item) for item in ROWS), NANO.vocab_size)
    assert (packed - alone).abs().max() < 2e-6 * packed.abs().max().clamp(min=1)


@pytest.mark.parametrize("attention", ATTENTION)
def test_rows_would_see_each_other_if_positions_did_not_start_again(attention: str):
    # Otherwise the test before could not fail.
    model, packed = tiny(attention), batch(ROWS)
    running = torch.arange(packed.ids.shape[1])[None]
    leaky = losses.decode(model, losses.embed(model, packed), running)
    exact = losses.decode(model, losses.embed(model, packed), packed.positions)
    assert (leaky - exact)[0, len(ROWS[0]) :].abs().max() > 1e-2


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("layout", ["one pack", "two packs", "padded"])
def test_packed_rows_give_the_loss_and_gradients_of_single_rows(attention: str, layout: str):
    model = tiny(attention)
    together = {
        "one pack": batch(ROWS),
        "two packs": batch(ROWS[:2], ROWS[2:], multiple=8),
        "padded": batch(*((item,) for item in ROWS), multiple=8),
    }[layout]
    alone = singles()
    expected = sum(scalar(losses.answer_loss(model, item)) for item in alone)
    assert scalar(losses.answer_loss(model, together)) == pytest.approx(expected, rel=2e-6)
    one, other = gradients(model, [together]), gradients(model, alone)
    assert one.keys() == other.keys()
    assert {"model.multi_modal_projector.linear_1.weight", "lm_head.weight"} <= one.keys()
    for name, gradient in one.items():
        assert (gradient - other[name]).abs().max() < 1e-5, name


@pytest.fixture
def unfused(monkeypatch: pytest.MonkeyPatch):
    """FlexAttention as torch spells it out where nothing compiles it, which takes minutes; with gradients.

    On a CPU torch refuses those, because its compiler has none there; what it spells out has.
    """
    spelled: Any = importlib.import_module("torch.nn.attention.flex_attention")
    stock: Any = importlib.import_module("transformers.integrations.flex_attention")
    masks: Any = importlib.import_module("transformers.masking_utils")
    make = masks.create_block_mask

    def plain(*given: Any, training: bool = False, **more: Any) -> Any:
        return spelled.flex_attention(*given, **more)

    monkeypatch.setattr(spelled, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(spelled, "_validate_device", lambda *_: None)
    monkeypatch.setattr(stock, "compile_friendly_flex_attention", plain)
    monkeypatch.setattr(masks, "create_block_mask", lambda **given: make(**{**given, "_compile": False}))


def test_packed_rows_equal_single_rows_with_flex_attention(unfused: None):
    model, packed = tiny("flex"), batch(ROWS[:2], ROWS[2:], multiple=8)
    together = losses.token_logits(model, packed)
    alone = [losses.token_logits(model, item)[0] for item in singles()]
    own = [torch.cat(alone[:2]), torch.cat(alone[2:])]
    for index, expected in enumerate(own):
        assert (together[index, : len(expected)] - expected).abs().max() < 2e-6
    one, other = gradients(model, [packed]), gradients(model, singles())
    plain = gradients(tiny("eager"), [packed])
    assert one.keys() == other.keys() == plain.keys()
    for name, gradient in one.items():
        assert (gradient - other[name]).abs().max() < 1e-5, name
        assert (gradient - plain[name]).abs().max() < 1e-5, name


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_loss_is_that_of_the_stock_model(attention: str, index: int):
    model, alone = tiny(attention), singles()[index]
    stock = model(input_ids=alone.ids, pixel_values=alone.vision, labels=alone.labels, use_cache=False)
    ours = losses.answer_loss(model, alone) / alone.supervised
    assert scalar(ours) == pytest.approx(scalar(stock.loss), rel=2e-6)
    assert (losses.token_logits(model, alone) - stock.logits).abs().max() < 1e-5


def test_the_loss_of_a_padded_batch_is_that_of_the_stock_model_with_a_mask():
    model, together = tiny(), batch(*((item,) for item in ROWS[:2]))
    mask = torch.zeros_like(together.ids)
    for index, item in enumerate(ROWS[:2]):
        mask[index, : len(item)] = 1
    stock = model(
        input_ids=together.ids, pixel_values=together.vision, labels=together.labels, attention_mask=mask
    )
    ours = losses.answer_loss(model, together) / together.supervised
    assert scalar(ours) == pytest.approx(scalar(stock.loss), rel=2e-6)


def test_the_loss_is_the_cross_entropy_of_the_full_logits():
    model, packed = tiny(), batch(ROWS[:2], ROWS[2:])
    logits = losses.token_logits(model, packed)[:, :-1]
    full = cross_entropy(logits.flatten(0, 1), packed.targets.flatten(), ignore_index=IGNORE, reduction="sum")
    assert scalar(losses.answer_loss(model, packed)) == pytest.approx(scalar(full), rel=1e-6)


def test_the_head_is_computed_for_supervised_tokens_only():
    model, packed = tiny(), batch(ROWS)
    given: list[torch.Size] = []
    model.lm_head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].shape))
    losses.answer_loss(model, packed)
    assert given == [(packed.supervised, 64)]
    assert packed.supervised < packed.ids.numel() / 3


@pytest.mark.parametrize("attention", ATTENTION)
def test_padding_does_not_change_the_loss(attention: str):
    model = tiny(attention)
    for packs in ((ROWS,), (ROWS[:1], ROWS[1:])):
        tight, wide = (losses.answer_loss(model, batch(*packs, multiple=m)) for m in (1, 64))
        assert scalar(wide) == pytest.approx(scalar(tight), rel=2e-6)


@pytest.mark.parametrize("layer", [-1, -2])
def test_features_and_pixels_give_the_same_loss(layer: int):
    model = tiny(layer=layer)
    seen = losses.features(model, pixels(4))
    assert seen.shape == (4, 4, 32)
    from_pixels = losses.answer_loss(model, batch(ROWS))
    from_features = losses.answer_loss(model, batch(ROWS, seen=seen, is_features=True))
    assert torch.equal(from_pixels, from_features)


def test_the_class_token_can_be_kept():
    model = tiny(select=FeatureSelect.FULL)
    assert losses.features(model, pixels(2)).shape == (2, 5, 32)
    alone = batch((row("<image>", "yes", image_tokens=5),))
    stock = model(input_ids=alone.ids, pixel_values=alone.vision, labels=alone.labels)
    ours = losses.answer_loss(model, alone) / alone.supervised
    assert scalar(ours) == pytest.approx(scalar(stock.loss), rel=2e-6)


def test_pictures_take_their_places_in_order():
    places = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 0, 1, 1]], dtype=torch.bool)
    projected = torch.arange(6.0).reshape(3, 2, 1)
    filled = losses.fill(torch.full((2, 5, 1), -1.0), places, projected)
    assert filled[..., 0].tolist() == [[-1, 0, 1, -1, -1], [2, 3, -1, 4, 5]]


def test_the_picture_matters_to_its_own_row_alone():
    model = tiny()
    seen = pixels(4)
    other = seen.clone()
    other[1] += 1  # the first of the two pictures in the third row
    one, two = (losses.token_logits(model, batch(ROWS, seen=item))[0] for item in (seen, other))
    changed = (one != two).any(-1).nonzero().flatten()
    start = len(ROWS[0]) + len(ROWS[1])
    first = start + ROWS[2].ids.index(NANO.image_patch_id)
    assert (int(changed.min()), int(changed.max())) == (first, start + len(ROWS[2]) - 1)


def test_placeholders_and_pictures_have_to_agree():
    model = tiny()
    with pytest.raises(DataError, match="4 image placeholders in a batch without pictures"):
        losses.answer_loss(model, collate([Pack(rows=ROWS[:1])], pad_id=0, vision=None))
    with pytest.raises(DataError, match="4 image placeholders but their 2 pictures give 8 embeddings"):
        losses.answer_loss(model, batch(ROWS[:1], seen=pixels(2)))


def test_a_batch_without_supervised_tokens_has_no_loss_and_no_gradient():
    model = tiny()
    silent = Encoded(id="s", ids=ROWS[1].ids, labels=(IGNORE,) * len(ROWS[1]))
    value = losses.answer_loss(model, batch((silent,)))
    assert scalar(value) == 0
    value.backward()
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
