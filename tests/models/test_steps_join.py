"""Batches that are joined while they run: every row goes on as if it were alone, in both model classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar.errors import ModelError
from llavar.models import _hf, lean, steps
from llavar.models.past import Past
from llavar.models.shape import LlavaShape, TextShape, VisionShape

SHAPE = LlavaShape(
    vision=VisionShape(image_size=24, patch_size=8, hidden=16, layers=2, heads=2, mlp=24),
    text=TextShape(vocab=50, hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, max_positions=256),
    image_token_id=49,
)
CLOSE = {"atol": 1e-4, "rtol": 1e-3}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("join") / "m"
    made = _hf.build_llava(SHAPE, seed=3)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(8)
    _hf.save_llava(made, folder)
    return {"lean": lean.load(folder), "stock": _hf.load_llava(folder)}


def start(model: Any, prompts: list[list[int]], seen: torch.Tensor | None = None) -> steps.Running:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return steps.begin(model, ids, mask, seen)


def whole(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits after a row, computed at once and alone."""
    return start(model, [ids]).logits[0]


@dataclass
class Rows:
    """A batch beside the tokens that each of its rows must have seen."""

    model: Any
    seen: list[list[int]] = field(default_factory=list)
    running: steps.Running | None = None

    def join(self, prompts: list[list[int]]) -> None:
        come = start(self.model, prompts)
        if self.running is None:
            self.running = come
        else:
            self.running.join(come)
        self.seen += [list(prompt) for prompt in prompts]

    def keep(self, places: list[int]) -> None:
        assert self.running is not None
        if not places:
            self.running, self.seen = None, []
            return
        self.running.keep(torch.tensor(places))
        self.seen = [list(self.seen[place]) for place in places]

    def step(self, tokens: list[int]) -> None:
        assert self.running is not None
        self.running.step(torch.tensor(tokens))
        for row, token in zip(self.seen, tokens, strict=True):
            row.append(token)

    def check(self) -> None:
        if self.running is not None:
            wanted = torch.stack([whole(self.model, ids) for ids in self.seen])
            assert torch.allclose(self.running.logits, wanted, **CLOSE)


words = st.integers(3, 48)
prompts_of = st.lists(st.lists(words, min_size=1, max_size=14), min_size=1, max_size=3)


@pytest.mark.parametrize("kind", ["lean", "stock"])
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_rows_come_and_go(models: dict[str, Any], kind: str, data: st.DataObject) -> None:
    rows = Rows(models[kind])
    with torch.inference_mode():
        for _ in range(data.draw(st.integers(2, 9), "events")):
            event = data.draw(st.sampled_from(["join", "keep", "step", "step"]))
            if event == "join" or rows.running is None:
                rows.join(data.draw(prompts_of))
            elif event == "keep":
                places = list(range(len(rows.seen)))
                rows.keep(data.draw(st.permutations(places))[: data.draw(st.integers(0, len(places)))])
            else:
                count = len(rows.seen)
                rows.step(data.draw(st.lists(words, min_size=count, max_size=count)))
            rows.check()


def test_many_turns_of_rows_do_not_lengthen_the_others(models: dict[str, Any]) -> None:
    """Columns in which nobody has anything left are dropped, or a busy server would grow for ever."""
    for model in models.values():
        rows = Rows(model)
        with torch.inference_mode():
            rows.join([[5, 6, 7]])
            for turn in range(150):
                rows.join([[4 + turn % 40, 9]])
                rows.step([8, 8])
                rows.keep([1])
                rows.step([8])
            rows.check()
            inner: Any = rows.running
            length = inner._past.length if hasattr(inner, "_past") else inner._mask.shape[1]
        assert length == 4
        if hasattr(inner, "_past"):  # as much memory as for two rows that have just begun
            assert inner._past.bytes <= 2 * 2 * (2 * 2 * 8) * 4 * (length + 2 * 64)


@pytest.mark.parametrize("kind", ["lean", "stock"])
def test_a_row_may_be_repeated(models: dict[str, Any], kind: str) -> None:
    rows = Rows(models[kind])
    with torch.inference_mode():
        rows.join([[5, 6, 7], [8, 9]])
        rows.keep([1, 0, 1, 1])
        rows.step([3, 4, 5, 6])
        rows.check()
        rows.join([[7] * 30])
        rows.step([3, 4, 5, 6, 7])
        rows.check()


@pytest.mark.parametrize("kind", ["lean", "stock"])
def test_rows_with_pictures_join(models: dict[str, Any], kind: str) -> None:
    model = models[kind]
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    first, second = [3, *[49] * 9, 4], [5, 6, 7, *[49] * 9, 8]
    with torch.inference_mode():
        seen = steps.features(model, pixels)
        one, two = start(model, [first], seen[:1]), start(model, [second], seen[1:])
        alone = torch.cat([one.logits, two.logits])
        one.join(two)
        assert torch.equal(one.logits, alone)
        one.step(torch.tensor([9, 10]))
        for row, (prompt, token) in enumerate(((first, 9), (second, 10))):
            wanted = start(model, [[*prompt, token]], seen[row : row + 1]).logits[0]
            assert torch.allclose(one.logits[row], wanted, **CLOSE)


def test_padding_holds_nothing_that_could_spread(models: dict[str, Any]) -> None:
    """A row that broke (values that are no numbers) leaves no trace where it stood."""
    model = models["lean"]
    rows = Rows(model)
    with torch.inference_mode():
        rows.join([[5, 6, 7, 8, 9, 10]])
        rows.join([[7, 8]])
        running: Any = rows.running
        for store in running._past._stores():
            store[1] = float("nan")
        rows.keep([0])
        rows.join([[3, 4]])
        rows.step([5, 6])
        rows.check()
        rows.keep([1])
        rows.join([[11] * 12])
        rows.step([7, 8])
        rows.check()


# --- what was computed before ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(
    prompts=prompts_of,
    steps_taken=st.integers(0, 3),
    data=st.data(),
)
def test_a_row_is_taken_up_again(
    models: dict[str, Any], prompts: list[list[int]], steps_taken: int, data: st.DataObject
) -> None:
    model = models["lean"]
    rows = Rows(model)
    with torch.inference_mode():
        rows.join(prompts)
        for _ in range(steps_taken):
            rows.step([5] * len(prompts))
        assert rows.running is not None
        place = data.draw(st.integers(0, len(prompts) - 1))
        past = rows.running.row(place)
        assert past is not None
        known = data.draw(st.integers(1, past.length))
        ids = [*rows.seen[place][:known], *data.draw(st.lists(words, min_size=1, max_size=8))]
        for _ in range(2):  # a second time, since the first must not have changed it
            rest = torch.tensor([ids[known:]])
            again = steps.begin(model, rest, torch.ones_like(rest), None, past.cut(known))
            again.step(torch.tensor([9]))
            assert torch.allclose(again.logits[0], whole(model, [*ids, 9]), **CLOSE)
            rows.running.join(again)
        rows.seen += [[*ids, 9], [*ids, 9]]
        rows.check()


def test_the_stock_class_gives_no_rows(models: dict[str, Any]) -> None:
    assert start(models["stock"], [[3, 4]]).row(0) is None


def test_padding_within_a_row_cannot_be_joined(models: dict[str, Any]) -> None:
    ids, mask = torch.tensor([[3, 4, 5]]), torch.tensor([[1, 0, 1]])
    with torch.inference_mode():
        odd = steps.begin(models["lean"], ids, mask, None)
        plain = start(models["lean"], [[3, 4]])
        before = plain.logits.clone()
        with pytest.raises(ModelError, match="padding after its tokens"):
            plain.join(odd)
        plain.step(torch.tensor([5]))
        assert not torch.equal(plain.logits, before)
        assert torch.allclose(plain.logits[0], whole(models["lean"], [3, 4, 5]), **CLOSE)


def test_a_step_that_failed_can_be_taken_again(
    models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Rows(models["lean"])
    with torch.inference_mode():
        rows.join([[3, 4, 5], [6, 7]])
        assert rows.running is not None
        extend = Past.extend

        def lacking(self: Past, layer: int, *states: torch.Tensor) -> Any:
            if layer == 1:
                raise torch.OutOfMemoryError("none left")
            return extend(self, layer, *states)

        monkeypatch.setattr(Past, "extend", lacking)
        with pytest.raises(torch.OutOfMemoryError):
            rows.running.step(torch.tensor([8, 9]))
        monkeypatch.undo()
        assert rows.running.repeatable
        rows.keep([1])
        rows.step([9])
        rows.check()


def test_a_cache_of_another_kind_is_not_joined(models: dict[str, Any]) -> None:
    running: Any = start(models["stock"], [[3, 4, 5]])
    assert running.joinable
    running._cache.layers[0].is_sliding = True
    assert not running.joinable
    assert not running.repeatable
    running._cache = object()
    assert not running.joinable


def test_stores_are_counted(models: dict[str, Any]) -> None:
    with torch.inference_mode():
        past = start(models["lean"], [[3, 4, 5], [6, 7]]).row(1)
    assert past is not None
    assert (past.rows, past.length) == (1, 2)
    assert past.bytes == 2 * 2 * (2 * 2 * 8) * 4  # layers, keys and values, heads x tokens x width, float32
