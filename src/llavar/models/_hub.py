# pyright: basic
"""Any image-text-to-text model of transformers: loaded, given what its own processor makes, asked.

Beside ``_hf`` and ``_hub_processor`` nothing else touches transformers for such models. Code that comes with
a model is never run: what transformers itself does not know is refused.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from llavar.errors import ConfigError, ModelError
from llavar.models import folder as folders
from llavar.models._hf import require_transformers
from llavar.models.stored import LazyTensor, open_tensors
from llavar.records import IGNORE

PROCESSOR_KEY = "llavar_processor"
"""In ``config.json``: ``own`` where a model was trained through its own processor and is to be asked so."""

OWN = "own"
_ENCODER_DECODERS = "encoder-decoder"


OnToken = Callable[[int], bool]
"""Told each token as it is made; True ends the answer."""


def is_for_own_processor(document: Mapping[str, object]) -> bool:
    """Whether the model of a ``config.json`` is asked through its own processor.

    Every image-text-to-text model that transformers knows is, but for ``llava``: that is where it was trained
    so.
    """
    kind = document.get("model_type")
    if kind == "llava":
        return document.get(PROCESSOR_KEY) == OWN
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    return kind in KNOWN


def load_config(folder: Path) -> Any:
    """The configuration of an image-text-to-text model.

    Raises:
        ModelError: it is another kind of model, or one that transformers does not know.
    """
    require_transformers()
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    kind = folders.read_document(folder, "config.json").get("model_type")
    if kind not in KNOWN:
        raise ModelError(
            f"{folder} is no image-text-to-text model that transformers knows (model_type {kind!r:.60}); "
            "name one that takes pictures, such as a Qwen2.5-VL, a LLaVA-OneVision or a Gemma 3"
        )
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a stranger's numbers can fail anywhere in the library
        raise ModelError(f"{folder / 'config.json'} does not describe a model: {_reason(error)}") from error
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{folder} is an {_ENCODER_DECODERS} ({kind}); only models that go on writing are trained"
        )
    return config


def load(folder: Path, *, dtype: torch.dtype, attention: str = "sdpa") -> Any:
    """The model of a folder on the CPU, in evaluation mode, its cache off.

    Raises:
        ModelError: it is none, incomplete or damaged, or keeps its weights quantized.
    """
    config = load_config(folder)
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{folder} keeps its weights quantized; name the model that it was made from")
    stored = open_tensors(folder)  # what is missing or truncated is named here
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging as their_logging

    their_logging.disable_progress_bar()  # it would break into ours
    try:
        with quiet():
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                str(folder),
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (ImportError, OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"transformers cannot load {folder}: {_reason(error)}") from error
    model, info = loaded
    lost = sorted(map(str, (*info["missing_keys"], *info["mismatched_keys"])))
    if lost:
        raise ModelError(
            f"{folder} holds {len(stored)} tensors and none that fits {lost[0]!r:.200}; fetch it again, or "
            "try another version of transformers"
        )
    return model.eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Without what transformers warns of while it loads: what matters is looked at and said here."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# What it consists of.


def kind_of(model: Any) -> str:
    """Its ``model_type``, such as ``qwen2_5_vl``."""
    return str(model.config.model_type)


def decoder_of(model: Any) -> str:
    """The name of the module that holds the layers of the language model.

    Raises:
        ModelError: transformers does not say which it is.
    """
    found = model.get_decoder()
    name = next((name for name, module in model.named_modules() if module is found), "")
    if not name:
        raise ModelError(f"the decoder of a {kind_of(model)} is not known apart from its tower")
    return name


def context_of(model: Any) -> int:
    """The most tokens that it takes; a very large number where its configuration does not say."""
    return context_in(model.config)


def context_in(config: Any) -> int:
    """As :func:`context_of`, of a configuration."""
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else 1 << 30


def accepted(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a processor's ``inputs`` that the model takes.

    Tokenizers give ``token_type_ids`` whether a model has a use for them or not. Anything else that it would
    not look at, or swallow without a word, means that the two do not belong together.

    Raises:
        ModelError: an input that the model does not take.
    """
    known = inspect.signature(model.forward).parameters
    given = {name: value for name, value in inputs.items() if name in known}
    odd = sorted(set(inputs) - set(given) - {"token_type_ids"})
    if odd:
        raise ModelError(f"the processor gives {odd[0]!r}, which a {kind_of(model)} does not take")
    return given


# Training.


def answer_loss(model: Any, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Cross entropy summed over the supervised tokens, an fp32 scalar.

    ``labels`` (rows, length) are those of ``inputs["input_ids"]``. The head is computed only where something
    is supervised in any of the rows, if the model can be told so.
    """
    targets = labels[:, 1:]
    kept = (targets != IGNORE).any(0).nonzero()[:, 0]
    given = accepted(model, inputs)
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        logits = model(**given, logits_to_keep=kept, use_cache=False).logits
    else:
        logits = model(**given, use_cache=False).logits[:, kept]
    targets = targets[:, kept]
    if logits.shape[:2] != targets.shape:
        raise ModelError(f"a {kind_of(model)} gives {list(logits.shape)} logits for {list(targets.shape)}")
    return cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )


# Asking.


@torch.no_grad()  # a model in training keeps what it makes in here: nothing of it may be bound to inference
def generate(
    model: Any,
    inputs: Mapping[str, Tensor],
    *,
    most: int,
    ends: Sequence[int],
    pad: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    on_token: OnToken | None = None,
) -> list[int]:
    """The tokens that the model writes after one prompt, its end token (if it came) included.

    Nothing of the model's own generation configuration takes part: no penalty and no other cut.
    """
    from transformers import GenerationConfig, StoppingCriteriaList

    drawn = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    model.generation_config = GenerationConfig(
        max_new_tokens=most,
        eos_token_id=list(ends),
        pad_token_id=pad,
        **(drawn if temperature > 0 else {"do_sample": False}),
    )
    start = inputs["input_ids"].shape[1]
    given = {name: value.to(model.device) for name, value in accepted(model, inputs).items()}

    def told(ids: Tensor, _scores: object, **_more: object) -> Tensor:
        stop = on_token is not None and ids.shape[1] > start and on_token(int(ids[0, -1]))
        return torch.full((ids.shape[0],), stop, device=ids.device)

    criteria = StoppingCriteriaList([told]) if on_token is not None else None
    with torch.random.fork_rng(devices=_gpus(model)), quiet():
        torch.manual_seed(seed)
        made = model.generate(**given, stopping_criteria=criteria, use_cache=True)
    return made[0, start:].tolist()


def _gpus(model: Any) -> list[int]:
    return [model.device.index or 0] if model.device.type == "cuda" else []


def end_ids(folder: Path) -> tuple[int, ...]:
    """The tokens that ``generation_config.json`` or else ``config.json`` say end an answer."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            value = folders.read_document(folder, name).get("eos_token_id")
            listed = value if isinstance(value, list) else [value]
            found = tuple(index for index in listed if isinstance(index, int) and index >= 0)
            if found:
                return found
    return ()


# Which stored tensor is which weight.


def stored_names(model: nn.Module, folder: Path, names: Sequence[str]) -> dict[str, LazyTensor]:
    """The tensors of ``folder`` that the weights ``names`` of ``model`` were read from, untouched since.

    Checkpoints have names of their own, which versions of transformers translate in their own ways. So a
    weight is found by the end of its name and by its numbers.

    Raises:
        ModelError: there is none that is equal to a weight, or more than one.
    """
    tensors = open_tensors(folder)
    ends: dict[str, list[LazyTensor]] = {}
    for tensor in tensors.values():
        ends.setdefault(_end(tensor.name), []).append(tensor)
    return {name: _same(name, model.get_parameter(name), ends.get(_end(name), []), folder) for name in names}


def _end(name: str) -> str:
    """From the number of the layer on: ``layers.3.self_attn.q_proj.weight``."""
    parts = name.split(".")
    place = next((place for place, part in enumerate(parts) if part.isdecimal()), len(parts) - 1)
    return ".".join(parts[max(0, place) :])


def _same(name: str, weight: Tensor, candidates: Sequence[LazyTensor], folder: Path) -> LazyTensor:
    fitting = [tensor for tensor in candidates if tensor.shape == tuple(weight.shape)]
    rows = sorted({0, weight.shape[0] // 2, weight.shape[0] - 1})  # a few, since all of them take minutes
    found = [tensor for tensor in fitting if _equal(tensor.load()[rows], weight.detach()[rows])]
    if len(found) > 1:
        found = [tensor for tensor in found if _equal(tensor.load(), weight.detach())]
    if len(found) != 1:
        raise ModelError(
            f"{len(found)} tensors of {folder} are the weight {name!r:.200}, so an adapter cannot be merged "
            "into it; name a model whose weights are stored as transformers has them"
        )
    return found[0]


def _equal(stored: Tensor, weight: Tensor) -> bool:
    return torch.equal(stored.to(weight.dtype), weight.cpu())


def check_attention(name: str, kind: str) -> str:
    """The attention that such a model is computed with where ``name`` is asked for.

    Raises:
        ConfigError: it is one for packed rows.
    """
    if name not in ("auto", "eager", "sdpa"):
        raise ConfigError(
            f"attention {name} is for packed rows, and those of a {kind} are padded; choose eager or sdpa"
        )
    return "sdpa" if name == "auto" else name
