# pyright: basic
"""A model's own processor and chat template, as far as pictures and text go.

The processor is put together from its parts, with the image processor that computes with Pillow and numpy: it
is there without torchvision, and gives the same numbers with it. Videos are not taken, so what prepares them
is left out, which transformers would not load without torchvision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llavar.errors import DataError, ModelError
from llavar.models import _hub as hub
from llavar.models._hub_spans import (
    PICTURE,
    Ending,
    Expanded,
    Message,
    Rendered,
    expanded,
    find_ending,
    labels,
    rendered,
)
from llavar.models.stored import COMPANIONS
from llavar.records import Role

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Size = tuple[int, int]
"""Width and height of a picture."""

_MULTIPLE = 8
"""Padded rows are as long as a multiple of this, as :mod:`llavar.data.feed` plans them."""

_REMEMBER = 4096
_PARTS = ("tokenizer", "image_processor", "video_processor")


class _NoVideos:
    """In the place of what prepares videos."""

    num_frames = fps = None
    merge_size = temporal_patch_size = 2
    _auto_class = None

    def __init__(self) -> None:
        self.model_input_names: list[str] = []


def load_parts(folder: Path) -> Any:
    """The processor of a folder.

    Raises:
        ModelError: there is none, it takes more than pictures and text, or a library that it needs is absent.
    """
    config = hub.load_config(folder)
    from transformers import AutoImageProcessor, AutoTokenizer

    own = {"local_files_only": True, "trust_remote_code": False}
    try:
        with hub.quiet():
            base = _class_of(folder, config)
            names = base.get_attributes()
            odd = [name for name in names if name not in _PARTS]
            if odd:
                raise ModelError(
                    f"the processor of {folder} wants a {odd[0]}; models of pictures and text do not"
                )
            made = {
                "tokenizer": AutoTokenizer.from_pretrained(str(folder), config=config, **own),
                "image_processor": AutoImageProcessor.from_pretrained(str(folder), backend="pil", **own),
                "video_processor": _NoVideos(),
            }
            settings, _ = base.get_processor_dict(str(folder), local_files_only=True)
            return _without_videos(base).from_args_and_dict([made[name] for name in names], settings)
    except ModelError:
        raise
    except Exception as error:  # a stranger's files can fail anywhere in the library
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(
            f"{folder} has no processor that can be used ({reason}); its folder needs the tokenizer, "
            "preprocessor_config.json and chat_template.jinja of the hub"
        ) from error


def _class_of(folder: Path, config: Any) -> Any:
    """The class that the folder names, or the one of this kind of model."""
    from transformers import ProcessorMixin
    from transformers.models.auto import processing_auto as auto

    settings, _ = ProcessorMixin.get_processor_dict(str(folder), local_files_only=True)
    named = settings.get("processor_class")
    found = auto.processor_class_from_name(named) if isinstance(named, str) else None
    if found is None and type(config) in auto.PROCESSOR_MAPPING:
        found = auto.PROCESSOR_MAPPING[type(config)]
    if found is None:
        raise ModelError(f"transformers knows no processor for a {config.model_type}")
    return found


def _without_videos(base: Any) -> Any:
    """The class ``base``, which takes anything as the part that prepares videos."""

    def check(self: Any, name: str, given: object) -> Any:
        return None if name == "video_processor" else base.check_argument_for_proper_class(self, name, given)

    def shown(_: Any) -> str:  # the library shows a processor when it is made, and that part as JSON
        return str(base.__name__)

    changed = {"check_argument_for_proper_class": check, "__repr__": shown, "__module__": base.__module__}
    return type(base.__name__, (base,), changed)


class OwnProcessor:
    """Text and pictures as a model's own processor makes them, and conversations as its template writes them.

    ``ending`` ends every answer. It pickles as the name of its folder.
    """

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            ModelError: there is no processor, no chat template, or none that can be trained with.
        """
        self.folder = folder
        self._held = load_parts(folder)
        self._tokenizer = self._held.tokenizer
        if not getattr(self._tokenizer, "is_fast", False):
            raise ModelError(f"{folder} has no fast tokenizer; tokenizer.json is needed")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        self.placeholder = str(getattr(self._held, "image_token", None) or "")
        others = (getattr(self._held, name, None) for name in ("video_token", "audio_token"))
        self._others = [str(token) for token in others if token]
        if not self._held.chat_template:
            self._held.chat_template = getattr(self._tokenizer, "chat_template", None)
        if not self._held.chat_template:
            raise ModelError(
                f"{folder} has no chat template, so nothing says how its questions and answers are written; "
                "put the chat_template.jinja of a chat model of this kind beside its tokenizer"
            )
        self._strings = False
        self.ending = self._ending()
        self._replaced: dict[tuple[Size, ...], list[str]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return OwnProcessor, (self.folder,)

    def _ending(self) -> Ending:
        """Also settles whether turns without a picture are plain strings, as a few templates want them."""
        wrong: list[str] = []
        for self._strings in (False, True):
            try:
                return self._tried()
            except (DataError, ModelError) as error:
                wrong.append(str(error))
        raise ModelError(f"{self.folder} cannot be talked to: {wrong[0]}")

    def _tried(self) -> Ending:
        asked = Message(role=Role.USER, parts=(PICTURE, "What does it say?"))
        shown = self.render([asked], open_turn=True).count(self.placeholder) if self.placeholder else 0
        if shown != 1:
            raise ModelError(f"its chat template shows {shown} placeholders for one picture")
        return find_ending(self.render, self._specials(), self._tokenizer.eos_token)

    def _specials(self) -> list[str]:
        """Tokens that a template may end an answer with: not those of pictures, and not a start of text."""
        added = self._tokenizer.added_tokens_decoder.values()
        others = {self.placeholder, self._tokenizer.bos_token}
        return [str(token.content) for token in added if token.special and token.content not in others]

    @property
    def digest(self) -> str:
        """Of the files that decide what it makes."""
        digest = hashlib.sha256()
        for name in (*COMPANIONS, "chat_templates/default.jinja"):
            path = self.folder / name
            if path.is_file() and name not in ("config.json", "generation_config.json"):
                digest.update(name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()[:16]

    @property
    def pad_id(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that end an answer: the template's, and those that the model's files name."""
        own = self._tokenizer.convert_tokens_to_ids(self.ending.token)
        return tuple(dict.fromkeys((int(own), *hub.end_ids(self.folder))))

    @property
    def opens_otherwise(self) -> bool:
        """Whether the template begins an answer within a conversation otherwise than when it asks for one."""
        asked = Message(role=Role.USER, parts=("What does it say?",))
        said = Message(role=Role.ASSISTANT, parts=("STOP",))
        return not self.render([asked, said]).startswith(self.render([asked], open_turn=True))

    # Text.

    def render(self, messages: Sequence[Message], *, open_turn: bool = False, system: str = "") -> str:
        """``messages`` as the chat template writes them, pictures as their placeholders.

        ``system`` is a text before them, in place of the template's own.

        Raises:
            DataError: the template refuses them.
        """
        written = [self._written(message.role.value, message.parts) for message in messages]
        if system:
            written.insert(0, self._written("system", (system,)))
        try:
            made = self._held.apply_chat_template(written, add_generation_prompt=open_turn, tokenize=False)
        except Exception as error:  # a template is a program of a stranger's
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"the chat template refuses it: {reason}") from error
        return str(made)

    def _written(self, role: str, parts: Sequence[str | None]) -> dict[str, Any]:
        if self._strings and PICTURE not in parts:
            return {"role": role, "content": "".join(part for part in parts if part is not None)}
        content = [{"type": "image"} if part is PICTURE else {"type": "text", "text": part} for part in parts]
        return {"role": role, "content": content}

    def rendered(self, messages: Sequence[Message]) -> Rendered:
        """``messages`` with the characters that are learned (:func:`llavar.models._hub_spans.rendered`)."""
        return rendered(self.render, self.ending, messages)

    def decode(self, ids: Sequence[int]) -> str:
        """An answer as text, without special tokens and the white space around it."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def spelt(self, ids: Sequence[int]) -> str:
        """Ids as text with everything in it, to look at."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    # Tokens.

    def encode(self, text: Rendered, sizes: Sequence[Size]) -> tuple[list[int], list[int]]:
        """Ids and labels of a row whose pictures have ``sizes``, exactly as the processor makes the ids.

        How many tokens a picture takes depends on its size; the processor is asked once for each size, with a
        picture of nothing, and what it writes in the place of the picture is kept.

        Raises:
            DataError: the row cannot be encoded, or the places of its answers are not certain.
            ModelError: the processor does not say what it makes of a picture.
        """
        odd = [token for token in self._others if token in text.text]
        if odd:
            raise DataError(f"it holds {odd[0]}, which stands for what is no picture; escape that text")
        key = tuple(sizes)
        made: list[int] | None = None
        if key not in self._replaced:
            made = self._ask(text.text, key)
        full = expanded(text, self.placeholder, self._replaced[key])
        ids, offsets = self._tokens(full.text)
        if made is not None and made != ids:
            self._replaced.pop(key)
            raise ModelError(
                f"the processor of {self.folder} makes other tokens of a row than its tokenizer does of "
                "what it says it writes; this kind of model is not supported"
            )
        return ids, self._labels(ids, offsets, full)

    def _labels(self, ids: list[int], offsets: list[tuple[int, int]], text: Expanded) -> list[int]:
        return labels(ids, offsets, text, spelt=lambda index: self.spelt([index]))

    def _ask(self, text: str, sizes: tuple[Size, ...]) -> list[int]:
        """The ids that the processor makes of a row, and on the way what it writes for its pictures."""
        from PIL import Image

        pictures = [Image.new("RGB", size) for size in sizes]
        made = self._call([text], [pictures], return_text_replacement_offsets=True)
        if sizes and "text_replacement_offsets" not in made:
            raise ModelError(
                f"the processor of {self.folder} does not say what it writes in the place of a picture; "
                "transformers 5.17 or later is needed, and a kind of model whose processor does"
            )
        written = made["text_replacement_offsets"][0] if sizes else []
        if len(self._replaced) >= _REMEMBER:
            self._replaced.pop(next(iter(self._replaced)))
        self._replaced[sizes] = [str(place["replacement"]) for place in written]
        return [int(index) for index in made["input_ids"][0]]

    def _tokens(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        made = self._tokenizer(
            text, return_offsets_mapping=True, add_special_tokens=self._adds_special(text), truncation=False
        )
        return list(made["input_ids"]), [(int(start), int(end)) for start, end in made["offset_mapping"]]

    def _adds_special(self, text: str) -> bool:
        """As ``apply_chat_template`` of processors decides it."""
        start = self._tokenizer.bos_token
        return start is None or not text.startswith(start)

    def _call(self, texts: Sequence[str], pictures: Sequence[Sequence[Image]], **how: Any) -> Any:
        shown = [list(each) for each in pictures] if any(pictures) else None
        adds = {self._adds_special(text) for text in texts}
        assert len(adds) == 1, "one template begins its texts in two ways"
        try:
            with hub.quiet():
                return self._held(
                    text=list(texts), images=shown, add_special_tokens=adds.pop(), truncation=False, **how
                )
        except Exception as error:  # it answers rows and pictures that it does not take with any exception
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"the model's processor refuses it: {reason}") from error

    # Inputs of the model.

    def inputs(self, texts: Sequence[str], pictures: Sequence[Sequence[Image]]) -> dict[str, Tensor]:
        """What the model takes for rows with their pictures, padded on the right.

        Raises:
            DataError: the processor refuses a row.
        """
        made = self._call(
            texts,
            pictures,
            padding=True,
            padding_side="right",
            pad_to_multiple_of=_MULTIPLE,
            return_tensors="pt",
        )
        return _tensors(made)

    def prompt(
        self, messages: Sequence[Message], pictures: Sequence[Image], *, system: str = ""
    ) -> dict[str, Tensor]:
        """What the model takes to answer the last of ``messages``, a question.

        Raises:
            DataError: the template or the processor refuses it.
        """
        text = self.render(messages, open_turn=True, system=system)
        if text.count(self.placeholder) != len(pictures):
            raise DataError(f"the question holds {self.placeholder}, which stands for a picture; rephrase it")
        return _tensors(self._call([text], [pictures], return_tensors="pt"))


def _tensors(made: Mapping[str, Any]) -> dict[str, Tensor]:
    import torch

    return {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}
