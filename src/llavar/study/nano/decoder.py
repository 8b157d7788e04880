"""Teach a Llama decoder language on text alone: to answer questions about a grid of symbols.

No picture is involved. In the places where a picture will stand it is given a grid of symbols (characters,
colours, ornaments; :mod:`llavar.render.grid`), each embedded by tables that are thrown away afterwards. It
learns to spell out, to find, to count. Whether the pixels of a picture can ever reach it in such a form is
then up to the projector: that is stage 1. It plays the part that pre-training on text plays for Vicuna.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from llavar import chat
from llavar.corpus.pairs import pair, with_image
from llavar.corpus.teach import TemplateTeacher
from llavar.corpus.wordings import STAGE1_WORDINGS
from llavar.data.collate import Batch, collate
from llavar.data.encode import encode
from llavar.models.loss import fill, head_loss
from llavar.models.tokenizer import TextTokenizer
from llavar.records import IGNORE, Conversation, Encoded, Example, Pack, Reject
from llavar.render import grid as grids
from llavar.render.layouts import Style, page, scene
from llavar.render.scene import Scene
from llavar.render.words import vocabulary
from llavar.study.nano.finding import Finder, begun, stacked
from llavar.study.nano.lessons import enriched, quiz
from llavar.study.nano.scenes import SHAPE_NAMES, facts, reading
from llavar.train.loop import Size


class Told(NamedTuple):
    """Token ids and labels, and the grids that stand in the places of pictures, one after the other.

    ``grid``: int64 (cells, 10): a grid's six numbers, the class of the character before, what its halves hold
    if the lines stand a little aside, and by how many hundredths it is that. ``found``: int64 (rows, length),
    what a :class:`~llavar.study.nano.finding.Finder` is to tell.
    """

    batch: Batch
    grid: Tensor
    found: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderData:
    """What the decoder is asked.

    ``damage`` is the largest chance of a character to be wrong in a grid, and ``noise`` the largest blur of a
    cell, in sizes of a symbol. A tower cannot tell in which cell a letter is that stands between two: up to
    half of a grid is what it were if its lines stood ``aside`` (a standard deviation, in sides of the
    picture). ``whole`` is the share of grids that keep all of their empty rows; the others lose some, which
    makes them shorter and changes no answer. A step of ``batch`` conversations is computed in ``parts``
    micro-batches of like length.

    Over the first ``warm`` samples it only spells, one full line at first, more of them later: that is where
    most is learned for each token that is computed, and questions cannot be answered before. ``pages`` is the
    share of samples that stay like this afterwards. ``more``, ``blank`` and ``quizzes`` are those of
    :func:`lesson`.
    """

    patches: int = 12
    batch: int = 48
    parts: int = 3
    turns: int = 5
    whole: float = 0.25
    random_text: float = 0.5
    doubled: float = 0.15
    damage: float = 0.06
    noise: float = 0.6
    aside: float = 0.005
    warm: int = 9_600
    pages: float = 0.25
    more: float = 0.0
    blank: float = 0.0
    quizzes: float = 0.0
    seed: str = "decoder"


_BEFORE, _ASIDE, _SHARE = 6, 7, 9
"""Columns of a grid in :class:`Told`: after the six numbers, and the first of two."""


class SymbolTables(nn.Module):
    """Embeds a grid: the sum of what its characters, its colour, its ornament and its place stand for."""

    def __init__(self, width: int, patches: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in grids.widths(patches))
        self.before = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, grids.CLASSES))
        for table in self.tables:
            nn.init.normal_(table.get_parameter("weight"), std=0.02)

    @torch.no_grad()
    def start_from(self, embeddings: Tensor, characters: Sequence[int]) -> None:
        """Let a character in a grid start as the token of that character, whose ids are ``characters``.

        In a right half-cell it is turned by half the width, so that the two of a cell can be told apart in
        their sum; each half has a mark of its own, the same for all characters. Then one attention pattern
        can spell them all.
        """
        width = embeddings.shape[1]
        tokens = embeddings[list(characters)]
        for table, turned in zip(self.tables, (tokens, tokens.roll(width // 2, dims=1)), strict=False):
            assert isinstance(table, nn.Embedding)
            table.weight.zero_()
            table.weight[1:] = turned + torch.randn(width) * embeddings.std()

    def forward(self, grid: Tensor, noise: float) -> Tensor:
        """(cells, 6 or more) -> (cells, width), each blurred by up to ``noise`` times the size of a symbol.

        Where there is noise and the grid is that of :class:`Told`, cells are in part what they hold aside.
        """
        embedded = sum(table(grid[..., i]) for i, table in enumerate(self.tables))
        assert isinstance(embedded, Tensor)
        if not noise:
            return embedded
        if grid.shape[1] > _ASIDE:
            share = grid[:, _SHARE, None] / 100
            for half, table in enumerate(self.tables[:2]):
                aside, here = table(grid[:, _ASIDE + half]), table(grid[:, half])
                embedded = embedded + share * (aside - here)
        scale = self.tables[0].get_parameter("weight").detach().std()
        strength = torch.rand(len(grid), 1) * noise * scale
        return embedded + strength * torch.randn_like(embedded)


class GridObjective:
    """Decoder, symbol tables and finder, trained on conversations about grids."""

    def __init__(
        self,
        decoder: Any,
        tables: SymbolTables,
        finder: Finder,
        tokenizer: TextTokenizer,
        data: DecoderData,
    ) -> None:
        self.decoder, self.tables, self.finder = decoder, tables, finder
        self.tokenizer, self.data = tokenizer, data

    def parts(self) -> Mapping[str, Mapping[str, nn.Parameter]]:
        return {
            "decoder": dict(self.decoder.named_parameters()),
            "tables": dict(self.tables.named_parameters()),
            "finder": dict(self.finder.named_parameters()),
        }

    def batches(self, step: int) -> Sequence[Told]:
        samples = range(step * self.data.batch, (step + 1) * self.data.batch)
        return tell(self.data, self.tokenizer, samples, parts=self.data.parts)

    def size(self, batch: Told) -> Size:
        return Size(
            samples=batch.batch.rows, tokens=batch.batch.ids.numel(), supervised=batch.batch.supervised
        )

    def loss(self, batch: Told) -> Tensor:
        # Seeded by what is in the batch, so that a step that is done again is done equally.
        torch.manual_seed(int(batch.grid.sum()))  # pyright: ignore[reportUnknownMemberType]
        inner, late, hidden = self._hidden(batch, noise=self.data.noise)
        targets = batch.batch.targets
        kept = targets != IGNORE
        answers = head_loss(self.decoder.lm_head, hidden[:, :-1][kept], targets[kept])
        # To spell is to find the cell that comes after what was written last. That every cell knows, half-way
        # up, which character comes before it is asked for outright; left to the answers it takes far longer.
        held = (batch.grid[:, :2] != grids.BLANK).any(1)
        before = head_loss(self.tables.before, inner[held], batch.grid[held, _BEFORE])
        return answers + 0.5 * before + 0.5 * self.finder.loss(late, batch.found)

    def _hidden(self, told: Told, noise: float) -> tuple[Tensor, Tensor, Tensor]:
        """What the cells hold after half of the layers (cells, width), and all positions after the last but
        one and after the last (rows, length, width)."""
        embeddings = self.decoder.model.embed_tokens(told.batch.ids)
        places = told.batch.ids == self.tokenizer.image_patch_id
        filled = fill(embeddings, places, self.tables(told.grid, noise).unsqueeze(0))
        out = self.decoder.model(
            inputs_embeds=filled,
            position_ids=told.batch.positions,
            use_cache=False,
            output_hidden_states=True,
        )
        states = out.hidden_states
        return states[len(states) // 2][places], states[-2], out.last_hidden_state

    @torch.no_grad()
    def accuracy(self, told: Told) -> tuple[float, float]:
        """Share of supervised tokens, and of whole rows, that are predicted rightly, given the true past."""
        logits = self.decoder.lm_head(self._hidden(told, noise=0.0)[-1])
        targets = told.batch.targets
        kept = targets != IGNORE
        right = logits[:, :-1].argmax(-1) == targets
        return right[kept].float().mean().item(), (right | ~kept).all(1).float().mean().item()


def tell(
    data: DecoderData, tokenizer: TextTokenizer, samples: Sequence[int], *, parts: int = 1
) -> list[Told]:
    """Make up ``samples``, each from its number and the seed alone; sorted by length into ``parts``."""
    made = sorted((_sample(data, tokenizer, index) for index in samples), key=lambda made: len(made[0]))
    size = -(-len(made) // parts)
    return [_told(made[start : start + size], tokenizer) for start in range(0, len(made), size)]


def _told(made: Sequence[tuple[Encoded, np.ndarray, list[int]]], tokenizer: TextTokenizer) -> Told:
    packs = [Pack(rows=(row,)) for row, _, _ in made]
    batch = collate(packs, pad_id=tokenizer.pad_id or 0, vision=None, multiple=8)
    found = stacked([flags for _, _, flags in made], batch.ids)
    return Told(batch, torch.as_tensor(np.concatenate([cells for _, cells, _ in made])), found)


def _sample(data: DecoderData, tokenizer: TextTokenizer, index: int) -> tuple[Encoded, np.ndarray, list[int]]:
    rng = random.Random(f"{data.seed}:{index}")
    ease = 1 - min(1.0, index / data.warm) if data.warm else 0.0
    style = Style(random_text=data.random_text, doubled=data.doubled)
    spelled, most = (1.0, 4 - 3 * ease) if ease else (data.pages, 4.0)
    name = f"{data.seed}:{index}"
    drawn, conversation, is_page = lesson(
        name, rng, style, spelled, most, data.turns, more=data.more, blank=data.blank, quizzes=data.quizzes
    )
    whole = 0.0 if is_page else data.whole
    cells = _seen(drawn, data, rng)
    if rng.random() >= whole:
        cells = _shortened(cells, rng, most=0.5 * (1 - ease))
    cells = cells.reshape(-1, cells.shape[-1])
    row = Example(id=str(index), images=(f"{index}.png",), conversation=conversation)
    encoded = encode(row, tokenizer, chat.get("llava_v1"), image_tokens=len(cells), start_end=True)
    shown = _with_before(_damaged(cells, rng, data.damage * (1 - ease)))
    return encoded, shown, begun(encoded, tokenizer, drawn.text)


class Lesson(NamedTuple):
    """A scene and what is asked about it. ``is_page``: some lines of a page, to be spelt."""

    scene: Scene
    conversation: Conversation
    is_page: bool


def lesson(
    name: str,
    rng: random.Random,
    style: Style,
    spelled: float,
    most: float,
    turns: int,
    *,
    more: float = 0.0,
    blank: float = 0.0,
    quizzes: float = 0.0,
) -> Lesson:
    """Up to ``most`` lines of a page to be spelt (a share of ``spelled``), or a conversation on a scene.

    A share ``more`` of the conversations ends in questions of :mod:`llavar.study.nano.lessons`, a share
    ``blank`` of the scenes has no text, and of a share ``quizzes`` nothing but those questions is asked.
    """
    if spelled >= 1 or rng.random() < spelled:
        drawn = _lines(page(name, style), rng, most)
        return Lesson(drawn, spell(drawn, rng), True)
    if blank and rng.random() < blank:
        style = replace(style, max_lines=0)
    if quizzes and rng.random() < quizzes:
        # Whether a word is there is learned where there are few: with more, nothing comes of it for long.
        drawn = scene(name, replace(style, max_lines=min(style.max_lines, rng.choice((1, 1, 1, 2, 3)))))
        return Lesson(drawn, quiz(drawn, rng), False)
    drawn = scene(name, style)
    talk = converse(drawn, rng, turns)
    return Lesson(drawn, enriched(talk, drawn, rng) if more and rng.random() < more else talk, False)


def _seen(drawn: Scene, data: DecoderData, rng: random.Random) -> np.ndarray:
    """int64 (side, side, 9): a scene's grid, what its halves hold if all lines stand aside, and a share."""
    moved = tuple(
        replace(line, x=line.x + rng.gauss(0, data.aside), baseline=line.baseline + rng.gauss(0, data.aside))
        for line in drawn.lines
    )
    cells = grids.grid(drawn, data.patches).cells()
    aside = grids.grid(replace(drawn, lines=moved), data.patches).cells()[..., :2]
    share = np.full_like(aside[..., :1], rng.randint(0, 50))
    return np.concatenate([cells, aside, share], -1)


def _with_before(cells: np.ndarray) -> np.ndarray:
    """The cells with a column after their six: the class of the last character before each, 0 for none."""
    latest, before = grids.BLANK, np.zeros(len(cells), np.int64)
    for place, (left, right) in enumerate(cells[:, :2]):
        before[place] = latest
        latest = right or left or latest
    return np.insert(cells, _BEFORE, before, axis=1)


def _lines(full: Scene, rng: random.Random, most: float) -> Scene:
    """A page with some of its lines alone, at least one and about ``most`` at the most."""
    count = rng.randint(1, max(1, round(most)))
    kept = sorted(rng.sample(range(len(full.lines)), min(count, len(full.lines))))
    return replace(full, lines=tuple(full.lines[place] for place in kept))


def _shortened(cells: np.ndarray, rng: random.Random, most: float) -> np.ndarray:
    """Without rows that hold neither text nor ornament; a share of up to ``most``, and one, stay."""
    empty = [row for row, content in enumerate(cells) if not content[:, [0, 1, 3, 6, 7]].any()]
    spared = empty[rng.randrange(len(empty))] if empty and most else -1
    kept = most * rng.random()
    gone = [row for row in empty if row != spared and rng.random() >= kept]
    return np.delete(cells, gone, axis=0)


def spell(drawn: Scene, rng: random.Random) -> Conversation:
    """The stage-1 request and the text."""
    return Conversation.of(with_image(rng.choice(STAGE1_WORDINGS), rng), drawn.text)


def converse(drawn: Scene, rng: random.Random, turns: int) -> Conversation:
    """Up to ``turns`` questions on one scene; half of the time the first one is the stage-1 request."""
    seed = rng.getrandbits(32)
    read = reading(drawn, f"{seed}.png", 384)
    teacher = TemplateTeacher(
        seed=seed, max_pairs=turns, words=vocabulary(held_out=False), shape_names=SHAPE_NAMES
    )
    taught = teacher.teach(read, facts(drawn))
    assert not isinstance(taught, Reject), "a scene always has a ground to ask about"
    request = pair(read, id=str(seed), image="")
    if isinstance(request, Reject) or rng.random() < 0.5:
        return taught
    # The tag moves to the request, which comes first.
    rest = (turn.text.replace("<image>", "").strip() for turn in taught.turns)
    return Conversation.of(*(turn.text for turn in request.conversation.turns), *rest)


def _damaged(cells: np.ndarray, rng: random.Random, most: float) -> np.ndarray:
    """Some characters replaced or gone, as a tower would misread them; most grids stay whole."""
    share = rng.random() * most if rng.random() < 0.5 else 0.0
    damaged = cells.copy()
    for place in zip(*np.nonzero(cells[:, :2]), strict=True):
        if rng.random() < share:
            damaged[place] = rng.randrange(grids.CLASSES)
    return damaged
