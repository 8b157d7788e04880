"""Text that is handed out while tokens come is never taken back, and is in the end the whole answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from llavar import chat
from llavar.generate.spelling import Speller, special_ids
from llavar.models.tokenizer import TextTokenizer, from_sentencepiece, nano_tokenizer


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory, tiny_sentencepiece: bytes) -> dict[str, TextTokenizer]:
    """Tokenizers that spell in different ways: by character, by pieces with bytes, by bytes alone."""
    file = tmp_path_factory.mktemp("spelling") / "tokenizer.model"
    file.write_bytes(tiny_sentencepiece)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={text: index for index, text in enumerate(alphabet)}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|end|>"])
    by_bytes = TextTokenizer(backend=backend, bos=None, eos="<|end|>", pad=None, unk=None)
    return {"nano": nano_tokenizer(), "sentencepiece": from_sentencepiece(file), "bytes": by_bytes}


def spell(tokenizer: TextTokenizer, ids: list[int], stops: tuple[str, ...] = ()) -> tuple[list[str], int]:
    """The pieces, and how many tokens were taken."""
    speller, pieces = Speller(tokenizer, special_ids(tokenizer), stops), list[str]()
    for count, token in enumerate(ids, 1):
        ended = speller.add(token)
        pieces.append(speller.take())
        if ended:
            return [*pieces, speller.finish()], count
    return [*pieces, speller.finish()], len(ids)


@pytest.mark.parametrize("kind", ["nano", "sentencepiece", "bytes"])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_pieces_make_the_whole_answer(
    kinds: dict[str, TextTokenizer], kind: str, data: st.DataObject
) -> None:
    """Of any tokens, characters in halves and special tokens included."""
    tokenizer = kinds[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    pieces, _ = spell(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids).strip()


@pytest.mark.parametrize("kind", ["sentencepiece", "bytes"])
@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=20))
def test_no_character_is_handed_out_in_halves(kinds: dict[str, TextTokenizer], kind: str, text: str) -> None:
    tokenizer = kinds[kind]
    if kind == "bytes":
        alphabet = _bytes_to_characters()
        ids = [tokenizer.token_id(alphabet[byte]) for byte in text.encode()]
    else:
        ids = tokenizer.encode(text)[1:]
    pieces, _ = spell(tokenizer, ids)
    assert "".join(pieces) == text.strip()
    assert all(piece.count("\ufffd") <= text.count("\ufffd") for piece in pieces)


def _bytes_to_characters() -> dict[int, str]:
    """GPT-2's table, by its definition: printable Latin-1 as it is, the others from 256 on."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {b: chr(256 + at) for at, b in enumerate(others)}


stops_of = st.lists(st.text("ab\n #", min_size=1, max_size=4), max_size=3).map(tuple)


@settings(deadline=None, max_examples=200)
@given(text=st.text("ab\n #", max_size=24), stops=stops_of)
def test_it_ends_before_the_first_stop_string(text: str, stops: tuple[str, ...]) -> None:
    tokenizer = nano_tokenizer()
    ids = [tokenizer.token_id(letter) for letter in text]
    pieces, taken = spell(tokenizer, ids, stops)
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert taken == min(ends, default=len(ids))
    seen = text[:taken]
    cut = min((seen.find(stop) for stop in stops if stop in seen), default=len(seen))
    assert "".join(pieces) == seen[:cut].strip()
    if not ends:
        for count in range(len(pieces)):
            assert text.strip().startswith("".join(pieces[:count]))


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    tokenizer = nano_tokenizer()
    speller = Speller(tokenizer, special_ids(tokenizer), ("###",))
    said: list[str] = []
    for letter in " Yes # ##x":
        assert not speller.add(tokenizer.token_id(letter))
        said.append(speller.take())
    assert said == ["", "Y", "e", "s", "", "", " #", "", "", " ##x"]
    assert speller.cut is None
    assert [speller.add(tokenizer.token_id("#")) for _ in range(3)] == [False, False, True]
    assert speller.take() == speller.finish() == ""
    assert speller.cut == len(" Yes # ##x")


def test_it_agrees_with_the_cleaning_of_whole_answers() -> None:
    tokenizer = nano_tokenizer()
    template = chat.get("multimodal")
    for text in (" Yes.### Human: more", "\n\n a  b \n", "###", "  ", "a# ## #b"):
        ids = [tokenizer.token_id(letter) for letter in text]
        pieces, _ = spell(tokenizer, ids, chat.stop_strings(template))
        assert "".join(pieces) == chat.clean_answer(tokenizer.decode(ids), template)


def test_empty_stop_strings_stop_nothing() -> None:
    tokenizer: Any = nano_tokenizer()
    assert "".join(spell(tokenizer, [tokenizer.token_id("a")], ("",))[0]) == "a"


def test_special_tokens_are_known(kinds: dict[str, TextTokenizer]) -> None:
    nano = kinds["nano"]
    assert {nano.eos_id, nano.bos_id, nano.image_patch_id} <= special_ids(nano)
    assert nano.token_id(" USER:") not in special_ids(nano)
