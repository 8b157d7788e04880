"""Which letters of a question a decoder is told more about, and that a training on pictures does."""

from __future__ import annotations

import torch

from llavar import chat
from llavar.data.encode import encode
from llavar.models import _hf as hf
from llavar.models.loss import answer_loss
from llavar.models.tokenizer import nano_tokenizer
from llavar.recipes.nano import nano_shape
from llavar.records import IGNORE, Conversation, Example
from llavar.study.nano.finding import Finder, begun, stacked
from llavar.study.nano.tune import SceneObjective, TuneData

NANO = nano_tokenizer()


def flagged(question: str, answer: str, text: str) -> str:
    """The letters that have a flag: those that words of ``text`` begin with in capitals, then a stroke."""
    talk = Conversation.of(f"<image>\n{question}", answer)
    row = encode(
        Example(id="1", images=("1",), conversation=talk), NANO, chat.get("llava_v1"), image_tokens=4
    )
    shown = ""
    for token, flag in zip(row.ids, begun(row, NANO, text), strict=True):
        if flag != IGNORE:
            letter = NANO.decode([token])
            shown += letter.upper() if flag else letter.lower() + "'"
    return shown


def test_letters_are_found_as_far_as_a_word_begins_with_them() -> None:
    assert flagged('Is the word "hull" in the picture?', "yes", "the HULL\nand hull 7") == "HULL"
    assert flagged('Is the word "hulk" in the picture?', "no", "the hull") == "HULk'"
    assert flagged('Is the word "ull" in the picture?', "no", "hull") == "u'l'l'"
    assert flagged('Is "hull" written here?', "no", "HULL") == "h'u'l'l'"
    assert flagged('Is "hull" written here?', "no", "") == "h'u'l'l'"


def test_nothing_else_is_asked_for() -> None:
    assert flagged("What is written in the first line?", 'a "hull" of wood', 'a "hull" of wood') == ""
    assert flagged('Is "a" or "b" written here?', "yes", "b") == "a'B"


def test_rows_are_stacked_to_the_length_of_the_longest() -> None:
    found = stacked([[1], [0, 1]], torch.zeros(2, 4, dtype=torch.long))
    assert found.tolist() == [[1, IGNORE, IGNORE, IGNORE], [0, 1, IGNORE, IGNORE]]


def test_a_finder_without_letters_asks_for_nothing() -> None:
    states, none = torch.randn(2, 3, 8, requires_grad=True), torch.full((2, 3), IGNORE)
    loss = Finder(8).loss(states, none)
    loss.backward()
    assert loss == 0
    assert states.grad is not None
    assert not states.grad.any()


def test_pictures_are_taught_with_a_finder_that_stays_as_it_is() -> None:
    model = hf.build_llava(
        nano_shape(vocab=NANO.vocab_size, image_token_id=NANO.image_patch_id), seed=0, attention="eager"
    )
    data = TuneData(batch=2, parts=1, pages=0.0, quizzes=1.0)
    finder = Finder(384).requires_grad_(False)
    alone, found = SceneObjective(model, NANO, data), SceneObjective(model, NANO, data, finder)
    (asked,) = found.batches(0)
    letters = int((asked.found != IGNORE).sum())
    assert letters > 0
    with torch.no_grad():
        answers = alone.loss(asked)
        assert torch.equal(answers, answer_loss(model, asked.batch))
        more = found.loss(asked) - answers
        assert 0.1 * letters < more < 3 * letters
        finder[1].get_parameter("weight").zero_()
        finder[1].get_parameter("bias").zero_()
        even = found.loss(asked) - answers
    assert torch.isclose(even, 0.5 * letters * torch.tensor(2.0).log(), rtol=1e-3)
