"""Answers of any image-text-to-text model through its own processor and chat template, one at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llavar import images
from llavar.errors import ConfigError, ContextLengthError, LlavarError, ModelError
from llavar.generate.base import Decoding, Request, request_seed
from llavar.generate.dialogue import Asked, Dialogue, Finish, Piece
from llavar.generate.local import LocalGenerator, digest_of
from llavar.models import _hub as hub
from llavar.models import folder as folders
from llavar.models._hub_processor import OwnProcessor
from llavar.models._hub_spans import PICTURE, Message
from llavar.models.quantize import Quantization
from llavar.records import Role

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_UNREADABLE = "\ufffd"


class HubGenerator:
    """Answers of one model in memory, greedy or drawn as each request asks.

    Nothing of the model's own generation settings takes part but the tokens that end an answer.
    """

    image_first = True
    """Whether a picture stands before its question unless it is asked otherwise: as the makers train them."""

    def __init__(self, model: Any, processor: OwnProcessor, *, name: str, folder: Path | None = None) -> None:
        self._model, self._processor, self._name = model, processor, name
        self._folder, self._digest = folder, ""

    @classmethod
    def load(cls, model: str | Path, *, dtype: torch.dtype | None = None, name: str = "") -> HubGenerator:
        """From a model folder or a hub id; ``dtype`` is bf16 on a GPU and fp32 elsewhere unless it is given.

        Raises:
            NotFoundError, FetchError, ModelError: the checkpoint is not there or cannot be used.
        """
        folder = folders.resolve(model)
        on_gpu = torch.cuda.is_available()
        processor = OwnProcessor(folder)
        loaded = hub.load(folder, dtype=dtype or (torch.bfloat16 if on_gpu else torch.float32))
        if on_gpu:
            loaded = loaded.cuda()
        return cls(loaded, processor, name=name or str(model), folder=folder)

    @property
    def name(self) -> str:
        return self._name

    @property
    def about(self) -> Mapping[str, str]:
        """What else decides an answer: digests of weights and processor, the number format."""
        if not self._digest and self._folder is not None:
            self._digest = digest_of(self._folder)
        return {
            "weights": self._digest,
            "processor": self._processor.digest,
            "dtype": str(self._model.dtype).removeprefix("torch."),
        }

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """One answer for each request.

        Raises:
            ImageError, NotFoundError: a picture cannot be used.
            DataError: template or processor refuse a question, or it is longer than the model takes.
            ModelError: the memory of the device does not hold it.
        """
        return [self._answered(request) for request in requests]

    def _answered(self, request: Request) -> str:
        picture = None if request.image is None else _opened(request.image)
        parts = (request.question,) if picture is None else (PICTURE, request.question)
        asked = Message(role=Role.USER, parts=parts if request.image_first else parts[::-1])
        inputs = self._processor.prompt([asked], [] if picture is None else [picture])
        self._check_room(inputs, request.max_new_tokens)
        made = self._generate(inputs, request.max_new_tokens, request.decoding, request_seed(request))
        return self._processor.decode(made)

    def _check_room(self, inputs: Mapping[str, Tensor], wanted: int) -> None:
        tokens, most = inputs["input_ids"].shape[1], hub.context_of(self._model)
        if tokens + wanted > most:
            raise ContextLengthError(
                f"the question with its pictures has {tokens} tokens, and with {wanted} for the answer they "
                f"exceed the {most} that the model takes; shorten either"
            )

    def _generate(
        self,
        inputs: Mapping[str, Tensor],
        most: int,
        decoding: Decoding,
        seed: int,
        on_token: hub.OnToken | None = None,
    ) -> list[int]:
        try:
            return hub.generate(
                self._model,
                inputs,
                most=most,
                ends=self._processor.ends,
                pad=self._processor.pad_id,
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                seed=seed,
                on_token=on_token,
            )
        except torch.OutOfMemoryError as error:
            raise ModelError(
                "the device has not enough memory for the question; ask for a shorter answer, or show a "
                "smaller picture"
            ) from error

    # A conversation, for ``llavar chat``.

    def pieces(self, asked: Asked) -> Generator[Piece]:
        """The answer as it comes. Closing the generator ends it.

        Raises:
            DataError: template or processor refuse the conversation, or it is longer than the model takes.
            ModelError: the memory of the device does not hold it.
        """
        messages, pictures = _conversation(asked.dialogue)
        system = asked.dialogue.system or ""
        inputs = self._processor.prompt(messages, pictures, system=system)
        room = hub.context_of(self._model) - inputs["input_ids"].shape[1]
        most = min(room, asked.max_new_tokens or room)
        self._check_room(inputs, max(most, 1))
        yield from _Writing(self, inputs, most, asked).pieces()

    def write(
        self, inputs: Mapping[str, Tensor], most: int, decoding: Decoding, on_token: hub.OnToken
    ) -> list[int]:
        """The tokens of an answer, each of which ``on_token`` is told."""
        return self._generate(inputs, most, decoding, decoding.seed, on_token)

    def spelt(self, ids: Sequence[int]) -> str:
        """Tokens of an answer as text."""
        return self._processor.decode(ids)

    @property
    def ends(self) -> tuple[int, ...]:
        return self._processor.ends


class _Writing:
    """One answer under way: a thread makes its tokens, whoever asked takes the text of them."""

    def __init__(
        self, generator: HubGenerator, inputs: Mapping[str, Tensor], most: int, asked: Asked
    ) -> None:
        self._generator, self._inputs, self._most, self._asked = generator, inputs, most, asked
        self._arrived: queue.SimpleQueue[int | LlavarError | None] = queue.SimpleQueue()
        self._stop = threading.Event()

    def pieces(self) -> Generator[Piece]:
        thread = threading.Thread(target=self._run, name="answer", daemon=True)
        thread.start()
        made: list[int] = []
        told = ""
        try:
            while isinstance(came := self._arrived.get(), int):
                made.append(came)
                text = self._generator.spelt(made)
                if text.startswith(told) and not text.endswith(_UNREADABLE):
                    if text != told:
                        yield Piece(text=text[len(told) :], completion_tokens=len(made))
                    told = text
            if came is not None:
                raise came
            finish = Finish.STOP if made and made[-1] in self._generator.ends else Finish.LENGTH
            rest = self._generator.spelt(made)
            yield Piece(
                text=rest[len(told) :] if rest.startswith(told) else "",
                prompt_tokens=self._inputs["input_ids"].shape[1],
                completion_tokens=len(made),
                finish=finish,
            )
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        try:
            self._generator.write(self._inputs, self._most, self._asked.decoding, self._token)
        except LlavarError as error:
            self._arrived.put(error)
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer has to be told
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._arrived.put(ModelError(f"the model failed while it answered: {reason}"))
        else:
            self._arrived.put(None)

    def _token(self, token: int) -> bool:
        self._arrived.put(token)
        return self._stop.is_set()


def _conversation(dialogue: Dialogue) -> tuple[list[Message], list[Image]]:
    messages = [
        Message(
            role=said.role,
            parts=tuple(part if isinstance(part, str) else PICTURE for part in _pictures_first(said.parts)),
        )
        for said in dialogue.turns
    ]
    shown = [part for said in dialogue.turns for part in _pictures_first(said.parts)]
    return messages, [part for part in shown if not isinstance(part, str)]


def _pictures_first(parts: Sequence[str | Image]) -> list[str | Image]:
    return sorted(parts, key=lambda part: isinstance(part, str))


def _opened(image: str | Path | Image) -> Image:
    return images.open_image(image) if isinstance(image, str | Path) else images.to_rgb(image)


# Which generator a checkpoint needs.


def load_any(
    model: str | Path,
    *,
    dtype: torch.dtype | None = None,
    name: str = "",
    template: str = "",
    quantize: Quantization | None = None,
) -> LocalGenerator | HubGenerator:
    """The generator that fits what is in a model folder or behind a hub id.

    ``template`` and ``quantize`` are for Llava models. Without ``dtype`` each has its own default.

    Raises:
        NotFoundError, FetchError, ModelError: the checkpoint is not there or cannot be used.
        ConfigError: it is asked through its own processor, and a setting is for Llava models.
    """
    folder = folders.resolve(model)
    name = name or str(model)
    if not hub.is_for_own_processor(folders.read_document(folder, "config.json")):
        kept = dtype or torch.float32
        return LocalGenerator.load(folder, dtype=kept, name=name, template=template, quantize=quantize)
    for flag, given in (("--conversation", template), ("--quantize", quantize)):
        if given:
            raise ConfigError(
                f"{flag} is for Llava models; {folder} is asked through its own processor and chat template"
            )
    return HubGenerator.load(folder, dtype=dtype, name=name)
