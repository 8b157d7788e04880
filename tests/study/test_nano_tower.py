from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from llavar.images import Transform, normalize, view
from llavar.models import _hf
from llavar.render import grid as grids
from llavar.render.grid import CHARACTERS
from llavar.render.layouts import Style, page, scene
from llavar.render.paint import paint
from llavar.study.nano.decoder import SymbolTables
from llavar.study.nano.join import JoinObjective
from llavar.study.nano.scenes import varied
from llavar.study.nano.tower import DenseHead, DenseObjective, TowerData, accuracy, features, show
from llavar.train.config import LoopConfig, PartConfig
from llavar.train.loop import fit

SMALL = TowerData(size=48, patches=6, batch=6)


def tiny() -> Any:
    _hf.require_transformers()
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=48,
            patch_size=8,
        )
    )


def objective() -> DenseObjective:
    tower = tiny()
    return DenseObjective(tower, DenseHead(32, 6), SMALL)


def test_the_loss_goes_down(tmp_path: Path):
    parts = {"tower": PartConfig(lr=3e-3), "head": PartConfig(lr=3e-3)}
    config = LoopConfig(steps=15, parts=parts, log_every=1, betas=(0.9, 0.98))
    ticks = fit(objective(), config, tmp_path).ticks
    assert ticks[-1].loss < 0.7 * ticks[0].loss


def test_a_joined_tower_shows_the_decoders_symbols(tmp_path: Path):
    torch.manual_seed(0)
    tables = SymbolTables(24, 6)
    tables.start_from(torch.randn(200, 24), range(95))
    before = [value.clone() for value in tables.parameters()]
    linear = nn.Linear(32, 24)
    start = linear.weight.detach().clone()
    joint = JoinObjective(tiny(), DenseHead(32, 6), linear, tables, SMALL)
    parts = {name: PartConfig(lr=3e-3) for name in ("tower", "head", "projector")}
    config = LoopConfig(steps=25, parts=parts, log_every=1, betas=(0.9, 0.98))
    seen = show(SMALL, range(900, 912))

    def apart() -> float:
        """Squared distance from what is meant, in sizes of what is meant, over patches with characters."""
        held = (seen.truth[..., :2] != grids.BLANK).any(-1)
        with torch.no_grad():
            meant = tables(seen.truth.flatten(0, 1), 0.0).unflatten(0, held.shape)[held]
            reached = linear(features(joint.tower, seen.pixels) / joint.scale)[held]
        return ((reached - meant).square().sum() / meant.square().sum()).item()

    first = apart()
    fit(joint, config, tmp_path)
    assert apart() < 0.8 * first
    assert not linear.weight.equal(start)
    assert all(old.equal(new) for old, new in zip(before, tables.parameters(), strict=True))


def test_samples_are_functions_of_their_number():
    first, second = show(SMALL, range(4)), show(SMALL, [2, 0])
    assert torch.equal(first.pixels[[2, 0]], second.pixels)
    assert torch.equal(first.truth[[2, 0]], second.truth)
    assert not torch.equal(first.pixels[0], first.pixels[1])
    assert (first.pixels.dtype, first.pixels.shape) == (torch.float32, (4, 3, 48, 48))
    assert (first.truth.dtype, first.truth.shape) == (torch.int64, (4, 36, 6))


def test_steps_show_new_samples_and_equal_steps_equal_ones():
    shown = objective()
    zero, one, again = (shown.batches(step)[0] for step in (0, 1, 0))
    assert torch.equal(zero.pixels, again.pixels)
    assert torch.equal(zero.truth, again.truth)
    assert not torch.equal(zero.pixels, one.pixels)
    assert torch.equal(one.truth, show(SMALL, range(6, 12)).truth)


def test_another_seed_gives_other_samples():
    other = show(TowerData(size=48, patches=6, seed="val"), range(3))
    assert not torch.equal(other.pixels, show(SMALL, range(3)).pixels)


def test_pages_are_shown_in_their_share():
    style = Style(random_text=0.6, shapes=0.6, wild=0.3)
    pages = [grids.grid(page(f"tower:{n}", style), 12).cells() for n in range(4)]
    scenes = [grids.grid(scene(f"tower:{n}", style), 12).cells() for n in range(4)]
    for share, expected in ((1.0, pages), (0.0, scenes)):
        truth = show(TowerData(pages=share, varied=False), range(4)).truth.numpy()
        assert np.array_equal(truth.reshape(4, 12, 12, 6), np.stack(expected))
    truth = show(TowerData(pages=0.75), [74, 75]).truth
    assert torch.equal(truth[0], show(TowerData(pages=1.0), [74]).truth[0])
    assert torch.equal(truth[1], show(TowerData(pages=0.0), [75]).truth[0])


def test_pixels_are_those_of_the_picture_as_a_model_gets_it():
    # Normalised as pictures from files are; every second one went through a picture twice as large.
    style = Style(random_text=0.6, shapes=0.6, wild=0.3)
    shown = show(TowerData(pages=1.0, varied=False), range(2)).pixels.numpy()
    plain = paint(page("tower:0", style), 96, noise_seed=0)
    large = paint(page("tower:1", style), 192, noise_seed=1)
    assert np.array_equal(shown[0], normalize(plain))
    assert np.array_equal(shown[1], normalize(view(large, transform=Transform.PAD, size=96)))


def test_letters_vary_and_their_cells_go_with_them():
    plain, other = (show(TowerData(pages=1.0, varied=chosen), range(6)) for chosen in (False, True))
    assert all(not torch.equal(one, two) for one, two in zip(plain.pixels, other.pixels, strict=True))
    assert not torch.equal(plain.truth[..., :2], other.truth[..., :2])
    assert torch.equal(plain.truth[..., 2:], other.truth[..., 2:])
    assert torch.equal(show(TowerData(pages=1.0), range(6)).pixels, other.pixels)


@pytest.mark.parametrize("seed", range(20))
def test_letters_vary_within_the_picture_and_keep_their_text(seed: int):
    drawn = page(seed, Style())
    other = varied(drawn, str(seed))
    assert other.text == drawn.text
    assert varied(drawn, str(seed)) == other
    assert any(not line.plain for line in other.lines)
    for before, after in zip(drawn.lines, other.lines, strict=True):
        assert after.box.right <= max(before.box.right, 0.99) + 1e-9
        assert (after.x, after.baseline, after.em) == (before.x, before.baseline, before.em)


def test_the_head_names_all_six_numbers():
    head = DenseHead(32, 12)
    parts = head(torch.zeros(2, 144, 32))
    assert [tuple(part.shape) for part in parts] == [(2, 144, n) for n in grids.widths(12)]


def test_sizes_count_every_patch():
    shown = objective()
    size = shown.size(shown.batches(0)[0])
    assert (size.samples, size.tokens, size.supervised) == (6, 216, 216)
    assert shown.parts().keys() == {"tower", "head"}


def test_features_are_those_that_the_model_will_use():
    shown = objective()
    pixels = shown.batches(0)[0].pixels
    hidden = shown.tower(pixels, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(features(shown.tower, pixels), hidden[:, 1:])


class Knowing(DenseHead):
    """Answers with the truth, but for characters that it is told to forget."""

    def __init__(self, truth: torch.Tensor, forget: str = "") -> None:
        super().__init__(32, 12)
        self.truth = truth
        self.forgotten = [CHARACTERS.index(char) + 1 for char in forget]

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        guess = self.truth.clone()
        for code in self.forgotten:
            guess[guess == code] = 0
        return tuple(
            torch.nn.functional.one_hot(guess[..., i].clamp(max=n - 1), n).float()
            for i, n in enumerate(self.widths)
        )


class Blind(torch.nn.Module):
    def forward(self, pixels: torch.Tensor, output_hidden_states: bool) -> Any:
        hidden = torch.zeros(len(pixels), 145, 32)
        return type("Out", (), {"hidden_states": [hidden]})


def test_accuracy_is_over_what_there_is_to_name():
    seen = show(TowerData(pages=0.3), range(30, 46))
    assert (seen.truth[..., 3] > 0).any()
    assert accuracy(Blind(), Knowing(seen.truth), seen) == (1.0, 1.0, 1.0)
    letters = seen.truth[..., :2]
    space = CHARACTERS.index("a") + 1
    missed = (letters == space).sum().item() / (letters > 0).sum().item()
    assert missed > 0
    found = accuracy(Blind(), Knowing(seen.truth, "a"), seen)
    assert found[0] == pytest.approx(1 - missed)


def test_the_loss_weighs_the_truth_highest():
    seen = show(TowerData(), range(3))
    right = DenseObjective(Blind(), Knowing(seen.truth), TowerData()).loss(seen)
    wrong = DenseObjective(Blind(), Knowing(seen.truth.roll(1, 0)), TowerData()).loss(seen)
    assert right.item() < wrong.item()
