"""Tokenizers: nano's own, saved ones, and the original's ``tokenizer.model`` made exact.

The original used the slow LLaMA tokenizer, which no loader of transformers 5 reproduces: it orders merges
by id instead of by score and forces another pre-tokenizer. :func:`from_sentencepiece` builds the one
``tokenizer.json`` that gives the original's ids. Nothing here imports torch or transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from llavar import chat
from llavar.errors import ModelError, NotFoundError

IMAGE_TOKENS = (chat.IMAGE_PATCH, chat.IMAGE_START, chat.IMAGE_END)
"""In the order in which the original added their rows to the embedding."""

V0_PAD = "[PAD]"
"""Padding of the original's v0; its row precedes those of the image tokens."""

_BLANK = "\u2581"
"""What sentencepiece writes for a blank."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""A piece that stands for one byte of a character that the vocabulary lacks."""

_UNREADABLE = "\ufffd"

_NANO_CHARACTERS = "\n" + "".join(chr(code) for code in range(0x20, 0x7F))

# Written out by code point, since half of them look alike: line ends and tabs, quotes, dashes, a fraction's
# slash, a bullet, a middle dot, a multiplication sign.
_NANO_FOLDS = (
    *(("\r\n", "\n"), ("\r", "\n"), ("\t", " ")),
    *(("\u2018", "'"), ("\u2019", "'"), ("\u201c", '"'), ("\u201d", '"')),
    *(("\u2010", "-"), ("\u2013", "-"), ("\u2014", "-"), ("\u2212", "-"), ("\u2044", "/")),
    *(("\u2022", "*"), ("\u00b7", "."), ("\u00d7", "x")),
)


_NANO_OPENINGS = (
    *("What is", "What does", "What text", "What words", "What number", "What colour", "What do you see"),
    *("Which text", "Which words", "Which number", "Which colour", "How many", "Read the", "Read everything"),
    *("Write down", "Write out", "Transcribe the", "Copy out", "Give the", "Give a short", "List the"),
    *("Show me", "Please read", "Is the word", "Is there a", "Does the", "Can you read", "Count the"),
    *("Name the colour", "The background", "Describe the", "Tell me", "Do you see"),
)
"""How requests begin. They would cost a third of all of nano's tokens if they were spelt."""

_NANO_WORDS = (
    *(" in the", " is the", " of the", " of text", " does the", " is in", " is written", " are there"),
    *(" do you see", " words", " word", " text", " picture", " image", " written", " visible", " line"),
    *(" lines", " first", " second", " last", " here", " shown", " number", " colour", " background"),
    *(" contain", " have", " circle", " circles", " square", " squares", " triangle", " triangles"),
)
"""Words of requests, long enough that hardly another word begins with them; a picture's text is spelt."""


def _nano_pieces() -> tuple[str, ...]:
    """What is one token besides characters: the fixed strings of ``llava_v1``, and words of requests."""
    system = (
        "You are LLaVA, a large language and vision assistant trained by UW Madison WAIV Lab.",
        "You are able to understand the visual content that the user provides,",
        " and assist the user with a variety of tasks using natural language.",
        "Follow the instructions carefully",
        " and explain your answers in detail.",
    )
    assert "".join(system) == chat.LLAVA_SYSTEM
    # The first user turn follows a blank, later ones follow </s> directly.
    return (*system, " USER:", "USER:", " ASSISTANT:", *_NANO_OPENINGS, *_NANO_WORDS)


def build_nano_tokenizer() -> Tokenizer:
    """One token per printable ASCII character, so that reading is spelling; pieces for what is asked.

    Ids: 0 ``<unk>`` (also padding), 1 ``<s>``, 2 ``</s>``, the newline and 0x20 to 0x7e, the pieces of the
    prompt, then the image tokens. Other characters are folded to ASCII where Unicode decomposes them
    (``é`` is ``e``), and are ``<unk>`` otherwise. Within ASCII, decoding gives back what was encoded.
    """
    specials = ("<unk>", "<s>", "</s>")
    vocabulary = {text: index for index, text in enumerate((*specials, *_NANO_CHARACTERS))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    folds = [normalizers.Replace(old, new) for old, new in _NANO_FOLDS]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), *folds])
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = _with_bos("<s>", 1)
    _add(tokenizer, specials)
    _add(tokenizer, _nano_pieces(), special=False)
    _add(tokenizer, IMAGE_TOKENS)
    return tokenizer


def _add(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool = True, strip: bool = False) -> None:
    tokens = [AddedToken(t, normalized=False, special=special, lstrip=strip, rstrip=strip) for t in texts]
    add = tokenizer.add_special_tokens if special else tokenizer.add_tokens  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    add(tokens)


def _with_bos(token: str, index: int) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, index)]
    )


def nano_tokenizer() -> TextTokenizer:
    """:func:`build_nano_tokenizer`, wrapped, with ``llava_v1`` as its chat template."""
    return TextTokenizer(
        backend=build_nano_tokenizer(),
        bos="<s>",
        eos="</s>",
        pad="<unk>",
        unk="<unk>",
        chat_template=chat.jinja_source(chat.get("llava_v1")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenizer:
    """A fast tokenizer with what a model folder says about it. Special tokens are held as text."""

    backend: Tokenizer
    bos: str | None
    eos: str | None
    pad: str | None
    unk: str | None
    chat_template: str = ""

    def encode_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids with the characters ``[start, end)`` of ``text`` each came from; ``<s>`` has (0, 0).

        A text that writes its own ``<s>`` (chat templates do) keeps one of the two.
        """
        encoding = self.backend.encode(text)
        ids, offsets = encoding.ids, encoding.offsets
        bos = self.bos_id
        if bos is not None and ids[:2] == [bos, bos] and self.bos and text.startswith(self.bos):
            return ids[1:], offsets[1:]
        return ids, offsets

    def encode(self, text: str) -> list[int]:
        """The token ids of ``text``, ``<s>`` first."""
        return self.encode_offsets(text)[0]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ``ids``; special tokens are left out unless ``skip_special`` is false.

        Bytes that are no UTF-8, as where an answer was cut within a character, become replacement characters.
        The library would do so with the whole run of bytes around them, which in a script that the vocabulary
        lacks is a word; the original kept what could be read, and so does this.
        """
        text = self.backend.decode(list(ids), skip_special_tokens=skip_special)
        return self._bytewise(ids, skip_special) if _UNREADABLE in text else text

    def _bytewise(self, ids: Sequence[int], skip_special: bool) -> str:
        special = {
            index
            for index, token in self.backend.get_added_tokens_decoder().items()
            if skip_special and token.special
        }
        pieces = [self.backend.id_to_token(index) or "" for index in ids if index not in special]
        if not any(_BYTE.fullmatch(piece) for piece in pieces):
            return self.backend.decode(list(ids), skip_special_tokens=skip_special)
        raw = b"".join(
            bytes([int(found[1], 16)])
            if (found := _BYTE.fullmatch(piece))
            else piece.replace(_BLANK, " ").encode("utf-8")
            for piece in pieces
        )
        return raw.decode("utf-8", errors="replace").removeprefix(" ")

    def piece(self, index: int) -> str:
        """One token as readable text: blanks as blanks, and a byte of the newline as a newline."""
        token = self.backend.id_to_token(index)
        if token is None:
            raise ModelError(f"token id {index} is not below the vocabulary size {self.vocab_size}")
        return "\n" if token == "<0x0A>" else token.replace(_BLANK, " ")

    def lookup(self, token: str) -> int | None:
        """The id of one token, or none where the vocabulary does not have it."""
        return self.backend.token_to_id(token)

    def token_id(self, token: str) -> int:
        """The id of one token.

        Raises:
            ModelError: the vocabulary does not have it.
        """
        index = self.lookup(token)
        if index is None:
            raise ModelError(
                f"the tokenizer has no token {token!r} among its {self.vocab_size};"
                " use the tokenizer that belongs to the checkpoint"
            )
        return index

    def _optional_id(self, token: str | None) -> int | None:
        return None if token is None else self.lookup(token)

    @property
    def bos_id(self) -> int | None:
        return self._optional_id(self.bos)

    @property
    def eos_id(self) -> int | None:
        return self._optional_id(self.eos)

    @property
    def pad_id(self) -> int | None:
        return self._optional_id(self.pad)

    @property
    def unk_id(self) -> int | None:
        return self._optional_id(self.unk)

    @property
    def image_patch_id(self) -> int:
        return self.token_id(chat.IMAGE_PATCH)

    @property
    def has_start_end(self) -> bool:
        """Whether pictures stand between ``<im_start>`` and ``<im_end>``."""
        return all(self.lookup(token) is not None for token in IMAGE_TOKENS)

    @property
    def vocab_size(self) -> int:
        """Rows that the embedding needs, added tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def template(self) -> chat.Template:
        """The conversation template: the named one that writes this chat template, or this one itself.

        Raises:
            ModelError: the tokenizer has no chat template.
        """
        if not self.chat_template:
            raise ModelError("the tokenizer carries no chat template; name one with --conversation")
        for template in chat.templates():
            if chat.jinja_source(template, start_end=self.has_start_end) == self.chat_template:
                return template
        return chat.own(self.chat_template, bos=self.bos or "", eos=self.eos or "")

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json``, ``special_tokens_map.json``, the template.

        The class named is ``PreTrainedTokenizerFast``, which old and new libraries read as it is.
        """
        folder.mkdir(parents=True, exist_ok=True)
        specials = {
            f"{kind}_token": text
            for kind, text in (("bos", self.bos), ("eos", self.eos), ("unk", self.unk), ("pad", self.pad))
            if text is not None
        }
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
            "padding_side": "right",
            **specials,
        }
        if self.chat_template:
            config["chat_template"] = self.chat_template
            (folder / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")
        self.backend.save(str(folder / "tokenizer.json"))
        _write_json(folder / "tokenizer_config.json", config)
        _write_json(folder / "special_tokens_map.json", specials)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ---------------------------------------------------------------- reading


def load_tokenizer(
    path: Path, *, v0: bool = False, start_end: bool = True, prefer_original: bool = False
) -> TextTokenizer:
    """The tokenizer in a folder: its ``tokenizer.json``, else its ``tokenizer.model`` made exact.

    ``v0`` and ``start_end`` say which tokens the original added to a bare ``tokenizer.model``; an
    ``added_tokens.json`` beside it says so itself, and a ``tokenizer.json`` needs neither. Folders of the
    original may hold both files, of which it used ``tokenizer.model``: ``prefer_original`` does so too.

    Raises:
        NotFoundError: the folder, or both files, are missing.
        ModelError: a file is damaged or is a Git LFS pointer.
    """
    if not path.is_dir():
        raise NotFoundError(f"there is no tokenizer folder at {path}; give a folder with tokenizer.json")
    original = prefer_original and (path / "tokenizer.model").is_file()
    if (path / "tokenizer.json").is_file() and not original:
        return _load_saved(path)
    if not (path / "tokenizer.model").is_file():
        raise NotFoundError(
            f"{path} holds neither tokenizer.json nor tokenizer.model; give the folder of a checkpoint"
        )
    return _load_original(path, v0=v0, start_end=start_end)


def _load_saved(folder: Path) -> TextTokenizer:
    file = folder / "tokenizer.json"
    _refuse_pointer(file)
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises bare Exception
        raise ModelError(f"{file} is no readable tokenizer.json ({error}); copy it again") from error
    # A batch length or padding left in the file would change ids silently.
    backend.no_truncation()
    backend.no_padding()
    config = {
        **_read_json(folder / "special_tokens_map.json"),
        **_read_json(folder / "tokenizer_config.json"),
    }
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else config.get("chat_template")
    return TextTokenizer(
        backend=backend,
        bos=_token_text(config.get("bos_token")),
        eos=_token_text(config.get("eos_token")),
        pad=_token_text(config.get("pad_token")),
        unk=_token_text(config.get("unk_token")),
        chat_template=text if isinstance(text, str) else "",
    )


def _token_text(value: object) -> str | None:
    """Special tokens are written as text, or by older libraries as ``{"content": text, ...}``."""
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("content")
    return value if isinstance(value, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}); copy it again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__} where an object belongs; copy it again")
    return cast("dict[str, Any]", value)


def _load_original(folder: Path, *, v0: bool, start_end: bool) -> TextTokenizer:
    written = _read_json(folder / "added_tokens.json")
    added = sorted(written, key=lambda token: (len(str(written[token])), str(written[token])))
    if not written:
        added = [V0_PAD] * v0 + [*IMAGE_TOKENS[: 3 if start_end else 1]]
    tokenizer = from_sentencepiece(folder / "tokenizer.model", added)
    for token, index in written.items():
        if tokenizer.lookup(token) != index:
            raise ModelError(
                f"{folder / 'added_tokens.json'} gives {token!r} the id {index!r:.40}, which follows from"
                f" tokenizer.model as {tokenizer.lookup(token)}; copy both from the same checkpoint"
            )
    return tokenizer


def _refuse_pointer(file: Path) -> None:
    with file.open("rb") as handle:
        if handle.read(24).startswith(b"version https://git-lfs"):
            raise ModelError(
                f"{file} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"
            )


def from_sentencepiece(model: Path, added: Sequence[str] = IMAGE_TOKENS) -> TextTokenizer:
    """The exact fast form of a ``tokenizer.model``: the ids of the slow LLaMA tokenizer, offsets besides.

    ``added`` are appended in order. The image tokens strip white space on both sides, as every added token
    of the slow tokenizer did, and every stretch of text between special tokens gets a blank of its own.

    Raises:
        ModelError: the file is damaged, a Git LFS pointer, or not BPE with ``<unk> <s> </s>`` first.
    """
    pieces = _read_sentencepiece(model)
    if [piece.text for piece in pieces[:3]] != ["<unk>", "<s>", "</s>"]:
        raise ModelError(
            f"{model} begins with {[piece.text for piece in pieces[:3]]} where a LLaMA tokenizer has"
            " <unk>, <s>, </s>; use the tokenizer.model of LLaMA-1 or of the checkpoint"
        )
    vocabulary = {piece.text: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(pieces, vocabulary),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_BLANK), normalizers.Replace(" ", _BLANK)])
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = _with_bos("<s>", 1)
    _add(backend, ("<unk>", "<s>", "</s>"))
    _add(backend, added, strip=True)
    pad = V0_PAD if V0_PAD in added else "<unk>"
    return TextTokenizer(backend=backend, bos="<s>", eos="</s>", pad=pad, unk="<unk>")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    text: str
    score: float
    mergeable: bool


def _read_sentencepiece(model: Path) -> list[_Piece]:
    import sentencepiece

    _refuse_pointer(model)
    reader: Any = sentencepiece.SentencePieceProcessor()
    try:
        reader.LoadFromSerializedProto(model.read_bytes())
    except RuntimeError as error:
        raise ModelError(f"{model} is no readable sentencepiece model; copy it again") from error
    return [
        _Piece(
            text=reader.IdToPiece(index),
            score=reader.GetScore(index),
            mergeable=not (reader.IsByte(index) or reader.IsControl(index) or reader.IsUnknown(index)),
        )
        for index in range(reader.GetPieceSize())
    ]


def _merges(pieces: Sequence[_Piece], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Every split of every piece into two pieces, best score first.

    Within a piece the splits are ordered by their ids, and pieces of equal score keep the vocabulary's
    order: this is how transformers 4 converted the model, and the order decides ties.
    """
    ordered = sorted((piece for piece in pieces if piece.mergeable), key=lambda piece: -piece.score)
    merges: list[tuple[str, str]] = []
    for piece in ordered:
        cuts = [(piece.text[:cut], piece.text[cut:]) for cut in range(1, len(piece.text))]
        known = [cut for cut in cuts if cut[0] in ids and cut[1] in ids]
        merges.extend(sorted(known, key=lambda cut: (ids[cut[0]], ids[cut[1]])))
    return merges


def with_image_tokens(tokenizer: TextTokenizer, *, start_end: bool) -> TextTokenizer:
    """A copy with the image tokens of which it has none yet, at its next ids.

    In a tokenizer of the sentencepiece family (BPE with byte fallback) they strip white space on both sides,
    as LLaVA's did. In a byte-level one they stand as they are: what surrounds them keeps its own tokens.
    """
    backend = Tokenizer.from_str(tokenizer.backend.to_str())
    fallback = json.loads(backend.to_str())["model"].get("byte_fallback", False)
    new = [token for token in IMAGE_TOKENS[: 3 if start_end else 1] if backend.token_to_id(token) is None]
    _add(backend, new, strip=bool(fallback))
    return replace(tokenizer, backend=backend)
