from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llavar import chat
from llavar.errors import ModelError, NotFoundError
from llavar.models.tokenizer import (
    IMAGE_TOKENS,
    TextTokenizer,
    build_nano_tokenizer,
    from_sentencepiece,
    load_tokenizer,
    nano_tokenizer,
)
from llavar.records import Conversation

NANO = nano_tokenizer()
ascii_text = st.text(st.sampled_from(string.printable.replace("\t", "").replace("\r", "")[:-2]), max_size=60)


def test_nano_ids_are_fixed():
    assert [NANO.token_id(token) for token in ("<unk>", "<s>", "</s>", "\n", " ", "~")] == [0, 1, 2, 3, 4, 98]
    assert [NANO.token_id(token) for token in IMAGE_TOKENS] == [NANO.vocab_size - 3 + n for n in range(3)]
    assert (NANO.bos_id, NANO.eos_id, NANO.pad_id, NANO.unk_id) == (1, 2, 0, 0)
    assert NANO.vocab_size == 177
    assert NANO.has_start_end


def test_nano_prompt_is_short():
    assert len(NANO.encode(chat.prompt("", chat.get("llava_v1")))) <= 12


@given(text=ascii_text)
@settings(deadline=None)
def test_nano_gives_ascii_back(text: str):
    assert NANO.decode(NANO.encode(text), skip_special=False) == "<s>" * (not text.startswith("<s>")) + text


@given(asked=ascii_text, answer=ascii_text)
@settings(deadline=None)
def test_nano_gives_whole_dialogues_back(asked: str, answer: str):
    spans = chat.render(Conversation.of(asked, answer, asked, answer), chat.get("llava_v1"))
    text = "".join(span.text for span in spans)
    assert NANO.decode(NANO.encode(text), skip_special=False) == "<s>" + text


@given(text=st.text(max_size=40))
@settings(deadline=None)
def test_nano_offsets_stay_in_order_and_inside(text: str):
    ids, offsets = NANO.encode_offsets(text)
    assert len(ids) == len(offsets)
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    assert [start for start, _ in offsets] == sorted(start for start, _ in offsets)


def test_nano_label_is_one_token_and_the_answer_starts_after_it():
    text = chat.prompt("Q", chat.get("llava_v1")) + " A</s>"
    ids, offsets = NANO.encode_offsets(text)
    label = ids.index(NANO.token_id(" ASSISTANT:"))
    assert offsets[label][1] == text.index(" A</s>")
    assert NANO.decode(ids[label + 1 :]) == " A"


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Café", "Cafe"),
        ("ﬁne", "fine"),
        ("“a” – ‘b’…", "\"a\" - 'b'..."),
        ("½", "1/2"),
        ("a\tb\r\nc", "a b\nc"),
    ],
)
def test_nano_folds_to_ascii(text: str, folded: str):
    assert NANO.decode(NANO.encode(text)) == folded


def test_nano_unknown_characters_are_one_unk_each():
    assert NANO.encode("字字") == [1, 0, 0]
    # Folding comes after special tokens are found, so a wide "<s>" cannot become one.
    assert NANO.encode("＜s＞") == NANO.encode("<s") + NANO.encode(">")[1:]


def test_a_written_bos_is_not_doubled():
    assert NANO.encode("<s>Hi") == NANO.encode("Hi")
    assert NANO.encode_offsets("<s>Hi")[1] == [(0, 3), (3, 4), (4, 5)]


def test_saved_folder_loads_here_and_in_transformers(tmp_path: Path):
    NANO.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.backend.to_str() == NANO.backend.to_str()
    assert (loaded.bos, loaded.eos, loaded.pad, loaded.unk) == ("<s>", "</s>", "<unk>", "<unk>")
    assert loaded.template() == chat.get("llava_v1")

    from transformers import PreTrainedTokenizerFast

    stock = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = chat.expand_images(chat.prompt("<image>\nWhat’s “Café” 字?", chat.get("llava_v1")), 3, True)
    assert stock(text)["input_ids"] == NANO.encode(text)
    assert (stock.bos_token_id, stock.eos_token_id, stock.pad_token_id, len(stock)) == (1, 2, 0, 177)
    assert stock.decode(NANO.encode("a  b ,c .")[1:]) == "a  b ,c ."
    parts = [{"type": "image"}, {"type": "text", "text": "Q"}]
    for content in ("<im_start><im_patch><im_end>\nQ", parts):
        written = stock.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        assert written == "<s>" + chat.expand_images(chat.prompt("<image>\nQ", chat.get("llava_v1")), 1, True)


def test_another_chat_template_is_kept_as_it_is(tmp_path: Path):
    source = "{{ bos_token }}{{ messages[0]['content'] }}"
    TextTokenizer(
        backend=build_nano_tokenizer(), bos="<s>", eos="</s>", pad=None, unk=None, chat_template=source
    ).save(tmp_path)
    template = load_tokenizer(tmp_path).template()
    assert template.style is chat.Style.OWN
    assert chat.prompt("Q", template) == "<s>Q"


def test_older_configs_spell_special_tokens_as_objects(tmp_path: Path):
    NANO.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    config = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").unlink()
    loaded = load_tokenizer(tmp_path)
    assert (loaded.bos_id, loaded.eos_id) == (1, None)
    with pytest.raises(ModelError, match="carries no chat template"):
        loaded.template()


def test_truncation_in_the_file_is_ignored(tmp_path: Path):
    NANO.save(tmp_path)
    backend = build_nano_tokenizer()
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(load_tokenizer(tmp_path).encode("abcdefgh")) == 9


def test_missing_tokens_are_named():
    with pytest.raises(ModelError, match="no token '<image>' among its 177"):
        NANO.token_id("<image>")
    with pytest.raises(ModelError, match="not below the vocabulary size 177"):
        NANO.piece(177)
    assert NANO.lookup("<image>") is None


def test_missing_and_damaged_folders(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no tokenizer folder"):
        load_tokenizer(tmp_path / "none")
    with pytest.raises(NotFoundError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\x00not a model")
    with pytest.raises(ModelError, match="no readable sentencepiece model"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no readable tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["[", "[1]"])
def test_damaged_configs(tmp_path: Path, content: str):
    NANO.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ModelError, match="copy it again"):
        load_tokenizer(tmp_path)


# ---------------------------------------------------------------- the original's tokenizer.model


@pytest.mark.parametrize(
    ("name", "v0", "start_end", "added"),
    [("tinysp", False, True, 3), ("tinysp", True, True, 4), ("tinysp", False, False, 1)],
)
def test_added_tokens_follow_the_vocabulary(
    shared_data: Path, name: str, v0: bool, start_end: bool, added: int
):
    folder = shared_data / "parity" / "tokenizers" / name
    tokenizer = load_tokenizer(folder, v0=v0, start_end=start_end)
    assert tokenizer.vocab_size == 1000 + added
    assert tokenizer.token_id("<im_patch>") == 1000 + v0
    assert tokenizer.has_start_end is start_end
    assert tokenizer.pad_id == (1000 if v0 else 0)


def test_pieces_equal_sentencepiece(shared_data: Path):
    import sentencepiece

    file = shared_data / "parity" / "tokenizers" / "tinysp" / "tokenizer.model"
    reader = sentencepiece.SentencePieceProcessor(model_file=str(file))
    tokenizer = from_sentencepiece(file)
    for text in (
        "What  is   this? ",
        "\nline\n\n two",
        "na\u00efve 字 \U0001f600",
        "    return x**2  # square",
        " ",
    ):
        ids, offsets = tokenizer.encode_offsets(text)
        assert ids[1:] == reader.encode(text)
        assert offsets[-1][1] == len(text)
        assert tokenizer.decode(ids) == text
    assert tokenizer.piece(tokenizer.encode("\n")[-1]) == "\n"


def test_converted_tokenizer_keeps_its_ids_in_transformers(shared_data: Path, tmp_path: Path):
    tokenizer = load_tokenizer(shared_data / "parity" / "tokenizers" / "tinysp")
    tokenizer.save(tmp_path)
    from transformers import PreTrainedTokenizerFast

    stock = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = chat.expand_images("What  is\n<image> ASSISTANT: this  one</s>USER: x </s> y", 2, True)
    assert stock(text)["input_ids"] == tokenizer.encode(text) == load_tokenizer(tmp_path).encode(text)


def test_added_tokens_beside_the_model_are_obeyed_and_checked(shared_data: Path, tmp_path: Path):
    model = shared_data / "parity" / "tokenizers" / "tinysp" / "tokenizer.model"
    (tmp_path / "tokenizer.model").write_bytes(model.read_bytes())
    added = tmp_path / "added_tokens.json"
    added.write_text(json.dumps({"<im_end>": 1002, "<im_patch>": 1000, "<im_start>": 1001}))
    assert load_tokenizer(tmp_path).token_id("<im_end>") == 1002
    added.write_text(json.dumps({"<im_patch>": 32000}))
    with pytest.raises(ModelError, match="gives '<im_patch>' the id 32000, which follows"):
        load_tokenizer(tmp_path)


def test_an_answer_cut_within_a_character_keeps_the_rest(tmp_path: Path, tiny_sentencepiece: bytes):
    (tmp_path / "tokenizer.model").write_bytes(tiny_sentencepiece)
    tokenizer = load_tokenizer(tmp_path)
    text = "sign \u51fa\u53e3 \u6587\u5b57"  # no character of which the vocabulary has
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids[:-1]) == text[:-1] + "\ufffd"
    assert tokenizer.decode([*ids[:-1], tokenizer.token_id("</s>")]) == text[:-1] + "\ufffd"
    assert tokenizer.decode([tokenizer.token_id("<0xFF>"), tokenizer.token_id("<0x41>")]) == "\ufffdA"


def test_replacement_characters_that_are_meant_are_kept(tmp_path: Path, tiny_sentencepiece: bytes):
    (tmp_path / "tokenizer.model").write_bytes(tiny_sentencepiece)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("a \ufffd b")) == "a \ufffd b"
    assert tokenizer.decode(tokenizer.encode("a \ufffd b"), skip_special=False).endswith("a \ufffd b")
