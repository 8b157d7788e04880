"""Drawing tokens: the right distribution, and a stream of its own for every request."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llavar.errors import ConfigError, NotFoundError
from llavar.generate.base import Decoding, Request, fingerprint, request_seed
from llavar.generate.decode import Chooser, decode, draw


class Script:
    """Rows that follow a table of tokens: the row's next token is likeliest at each step."""

    def __init__(self, rows: list[list[int]], vocabulary: int = 8) -> None:
        self.rows, self.vocabulary, self.at = rows, vocabulary, 0
        self.widths: list[int] = []
        self._show()

    def _show(self) -> None:
        self.widths.append(len(self.rows))
        self.logits = torch.zeros(len(self.rows), self.vocabulary)
        for place, row in enumerate(self.rows):
            self.logits[place, row[min(self.at, len(row) - 1)]] = 5.0

    def step(self, tokens: torch.Tensor) -> None:
        expected = [row[min(self.at, len(row) - 1)] for row in self.rows]
        assert tokens.tolist() == expected
        self.at += 1
        self._show()

    def keep(self, rows: torch.Tensor) -> None:
        self.rows = [self.rows[place] for place in rows.tolist()]


def ask(question: str = "q", most: int = 8, **decoding: float) -> Request:
    return Request(image=None, question=question, max_new_tokens=most, decoding=Decoding(**decoding))


def test_rows_leave_when_they_have_ended() -> None:
    script = Script([[3, 4, 2], [3, 2], [5], [6]])
    made = decode(script, [ask(), ask(), ask(most=1), ask(most=5)], end=2)
    assert made == [[3, 4, 2], [3, 2], [5], [6, 6, 6, 6, 6]]
    assert script.widths == [4, 3, 2, 1, 1]


def test_an_answer_can_be_stopped_by_what_it_says() -> None:
    made = decode(Script([[3, 4, 5, 6], [4, 4, 6, 6]]), [ask(), ask()], end=None, stopped=lambda m: 5 in m)
    assert made == [[3, 4, 5], [4, 4, 6, 6, 6, 6, 6, 6]]


def test_drawn_tokens_have_the_probabilities_of_the_model() -> None:
    probability = torch.tensor([0.1, 0.5, 0.25, 0.15])
    n = 4000
    uniform = (torch.arange(n) + 0.5).double() / n
    tokens = draw(probability.log().expand(n, 4), torch.ones(n, 1).double(), uniform)
    counts = torch.bincount(tokens, minlength=4) / n
    assert torch.allclose(counts, probability, atol=2 / n)


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, {1}), (0.5, {1}), (0.51, {1, 2}), (0.9, {1, 2, 3})])
def test_top_p_keeps_the_likeliest(top_p: float, kept: set[int]) -> None:
    logits = torch.tensor([0.1, 0.5, 0.25, 0.15]).log().expand(1000, 4)
    uniform = torch.arange(1000).double() / 1000
    tokens = draw(logits, torch.full((1000, 1), top_p).double(), uniform)
    assert set(tokens.tolist()) == kept


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=9),
    st.floats(1e-6, 1),
    st.floats(0, 1, exclude_max=True),
)
def test_a_draw_is_always_a_token_that_was_kept(logits: list[float], top_p: float, uniform: float) -> None:
    table = torch.tensor([logits], dtype=torch.float32)
    (token,) = draw(table, torch.tensor([[top_p]]).double(), torch.tensor([uniform]).double()).tolist()
    better = (table.double().softmax(-1)[0] > table.double().softmax(-1)[0, token]).nonzero()
    assert float(table.double().softmax(-1)[0][better].sum()) < top_p + 1e-9


def test_every_row_has_its_own_stream() -> None:
    requests = [ask(f"question {i}", temperature=1.0) for i in range(4)]
    logits = torch.zeros(4, 100)
    together = Chooser(requests, torch.device("cpu"))
    for step in range(3):
        tokens = together(logits, torch.arange(4), step)
        for row, request in enumerate(requests):
            alone = Chooser([request], torch.device("cpu"))
            assert alone(logits[:1], torch.tensor([0]), step).tolist() == [int(tokens[row])]
    assert len(set(tokens.tolist())) > 1


def test_a_cold_row_is_greedy_whatever_the_others_are() -> None:
    requests = [ask(), ask(temperature=1.0)]
    logits = torch.zeros(2, 100)
    logits[:, 7] = 0.1
    drawn = [Chooser(requests, torch.device("cpu"))(logits, torch.arange(2), s).tolist() for s in range(8)]
    assert [first for first, _ in drawn] == [7] * 8
    assert len({second for _, second in drawn}) > 1


def test_seeds_depend_on_the_question_the_id_and_the_picture() -> None:
    red, blue = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "blue")
    first = ask(temperature=1.0)
    others = [
        replace(first, question="other"),
        replace(first, id="1"),
        replace(first, image=red),
        replace(first, image=blue),
        replace(first, decoding=Decoding(temperature=1.0, seed=1)),
    ]
    assert len({request_seed(request) for request in (first, *others)}) == 6
    assert request_seed(first) == request_seed(replace(first, decoding=Decoding(temperature=0.3)))
    assert all(0 <= request_seed(request) < 2**31 for request in others)


def test_a_picture_is_known_by_what_it_shows(tmp_path) -> None:
    Image.new("RGB", (2, 2), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    assert fingerprint(tmp_path / "a.png") == fingerprint(str(tmp_path / "b.png"))
    assert fingerprint(Image.new("RGB", (4, 1))) != fingerprint(Image.new("RGB", (1, 4)))
    with pytest.raises(NotFoundError, match="no picture"):
        fingerprint(tmp_path / "c.png")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top-p is 0.0"),
        ({"top_p": 1.5}, "top-p is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_decodings_that_cannot_be(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Decoding(**values)


def test_a_request_needs_room_for_an_answer() -> None:
    with pytest.raises(ConfigError, match="max_new_tokens is 0"):
        ask(most=0)
