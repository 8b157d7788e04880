"""Checkpoints in the layout of the original LLaVA: opened without being loaded, whatever they are made of.

A full checkpoint, a delta with its base, and a projector with its base all become one :class:`Original`,
whose tensors are read, added or extended one at a time, when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, cast

from llavar.errors import ConfigError, ModelError, NotFoundError
from llavar.models import delta
from llavar.models import folder as folders
from llavar.models.exact import EXACT
from llavar.models.projector import Linear
from llavar.models.projector_file import PROJECTOR_BIAS, PROJECTOR_WEIGHT, read_projector_file
from llavar.models.shape import ORIGINAL_CLASSES, TextShape, read_text
from llavar.models.stored import LazyTensor, open_tensors
from llavar.models.stream import Planned
from llavar.models.tokenizer import IMAGE_TOKENS, V0_PAD, TextTokenizer, from_sentencepiece, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
_CHUNK = 4096


class Kind(StrEnum):
    """What a conversion started from."""

    FULL = "full checkpoint"
    DELTA = "delta and base"
    PROJECTOR = "projector and base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A model in the original's names, tensors not yet read.

    ``folder`` is where configuration and, if ``tokenizer_model`` is not None, that sentencepiece file came
    from; ``config`` is as found. ``notes`` are sentences on what was decided.
    """

    kind: Kind
    folder: Path
    config: Mapping[str, object]
    text: TextShape
    tokenizer: TextTokenizer
    tokenizer_model: Path | None
    tensors: Mapping[str, Planned]
    inputs: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def projector_width(self) -> int:
        """Width of the tower that the projector takes."""
        return self.tensors[PROJECTOR_WEIGHT].shape[1]

    @property
    def start_end(self) -> bool:
        """Whether pictures stand between ``<im_start>`` and ``<im_end>``."""
        return self.tokenizer.has_start_end

    def projector(self) -> Linear:
        """The single layer, read now."""
        tensors = self.tensors
        return Linear(weight=value_of(tensors[PROJECTOR_WEIGHT]), bias=value_of(tensors[PROJECTOR_BIAS]))


def open_original(src: Path, base: Path | None, out: Path, *, start_end: bool = True) -> Original:
    """What a user names as the source of a conversion.

    Args:
        src: A checkpoint folder; with ``base``, the folder of a delta or a file that holds a projector.
        base: The LLaMA that a delta or projector was made for.
        out: Where the result will be written, which may be none of the sources.
        start_end: For a projector: whether ``<im_start>`` and ``<im_end>`` are added to the vocabulary.

    Raises:
        NotFoundError: a path does not exist.
        ModelError: a file is damaged, or the parts do not belong together.
    """
    for path in (src, base):
        if path is not None and not path.exists():
            raise NotFoundError(f"there is nothing at {path}; name a checkpoint folder or a projector file")
    if src.is_file():
        if base is None:
            raise ModelError(
                f"{src} is a file, so it is taken for a projector, which alone is no model; say --base DIR, "
                "the LLaMA or Vicuna it was trained for, or name the folder of the checkpoint"
            )
        return _with_projector(src, base, start_end)
    return _full(src) if base is None else _merged(src, base, out)


# ---------------------------------------------------------------- full checkpoints and deltas


def _full(folder: Path) -> Original:
    config = read_config(folder)
    stored = open_tensors(folder)
    _refuse_strangers(folder, stored)
    if PROJECTOR_WEIGHT not in stored or PROJECTOR_BIAS not in stored:
        raise ModelError(
            f"{folder} has no {PROJECTOR_WEIGHT} with its bias among its {len(stored)} tensors: it is a "
            "decoder without a projector; if you have the projector, say: llavar convert from-llava "
            f"mm_projector.bin --base {folder}"
        )
    planned = {name: as_planned(tensor) for name, tensor in stored.items()}
    _refuse_lone_delta(folder, planned)
    return _assembled(Kind.FULL, folder, config, planned, files_of(folder, stored.values()), folder)


def _merged(folder: Path, base: Path, out: Path) -> Original:
    config = read_config(folder)
    plan = delta.plan_apply(base, folder, out)
    tensors = {planned.name: planned for planned in plan.tensors}
    _refuse_strangers(folder, tensors)
    inputs = [path for one in (folder, base) for path in files_of(one, open_tensors(one).values())]
    if plan.exact:
        inputs.append(folder / EXACT)
    has_own = any((folder / name).is_file() for name in ("tokenizer.model", "tokenizer.json"))
    found = _assembled(Kind.DELTA, folder, config, tensors, tuple(inputs), folder if has_own else base)
    return replace(found, notes=(*plan.warnings, *found.notes))


def read_config(folder: Path) -> dict[str, object]:
    """The ``config.json`` of an original checkpoint.

    Raises:
        ModelError: it is converted already, or has another decoder than LLaMA.
    """
    config = folders.read_document(folder, "config.json")
    named = config.get("architectures") or [None]
    name = cast("list[object]", named)[0] if isinstance(named, list) else named
    if name == "LlavaForConditionalGeneration":
        raise ModelError(f"{folder} holds a {name}: it is converted already and loads as it is")
    if name in ("LlavaMPTForCausalLM", "LlavaMptForCausalLM"):
        raise ModelError(f"{folder} holds a {name}; only decoders of the LLaMA family can be converted")
    known = name is None or name in ORIGINAL_CLASSES or name in ("LlamaForCausalLM", "LLaMAForCausalLM")
    if not known or config.get("model_type") not in ("llava", "llama"):
        raise ModelError(
            f"{folder} holds a {str(name)[:60]} (model_type {config.get('model_type')!r:.40}); a "
            "LlavaLlamaForCausalLM was expected"
        )
    return config


def _refuse_strangers(folder: Path, names: Mapping[str, object]) -> None:
    """Layouts that look like the original's and are later or unfinished ones."""
    remedies = {
        "model.mm_projector.0.": "a projector of two layers (LLaVA-1.5; see llava-hf/llava-1.5-13b-hf)",
        "model.vision_tower.": "a vision tower of its own (a later LLaVA); v0, v1 and LLaVAR keep it apart",
        "base_model.": "LoRA adapters; merge them first: llavar convert merge-lora",
    }
    for prefix, what in remedies.items():
        found = next((name for name in names if name.startswith(prefix)), None)
        if found is not None:
            raise ModelError(f"{folder} holds {what} ({found!r})")


def _refuse_lone_delta(folder: Path, tensors: Mapping[str, Planned]) -> None:
    """A delta without its base is full of small numbers; the norms of a trained decoder are near 1."""
    norm = tensors.get("model.norm.weight")
    if norm is not None and float(value_of(norm).float().abs().mean()) < 0.1:
        raise ModelError(
            f"{folder} is a delta: its norms are near 0 where a model's are near 1; say --base DIR, the "
            "LLaMA it belongs to"
        )


def _assembled(
    kind: Kind,
    folder: Path,
    config: Mapping[str, object],
    tensors: Mapping[str, Planned],
    inputs: tuple[Path, ...],
    tokenizer_folder: Path,
) -> Original:
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(".rotary_emb.inv_freq")}
    if EMBEDDING not in kept:
        raise ModelError(f"{folder} has no {EMBEDDING}; it is no checkpoint of LLaVA")
    _check_projector(folder, kept)
    rows = kept[EMBEDDING].shape[0]
    _check_rows(folder, config, rows)
    tokenizer = _tokenizer_of(tokenizer_folder, config, rows)
    text, notes = _text_of(folder, config, rows, tokenizer)
    model = tokenizer_folder / "tokenizer.model"
    return Original(
        kind=kind,
        folder=folder,
        config=config,
        text=text,
        tokenizer=tokenizer,
        tokenizer_model=model if model.is_file() else None,
        tensors=kept,
        inputs=inputs,
        notes=notes,
    )


def _check_projector(folder: Path, tensors: Mapping[str, Planned]) -> None:
    """One linear layer into the width of the embeddings."""
    weight, bias = tensors[PROJECTOR_WEIGHT].shape, tensors[PROJECTOR_BIAS].shape
    table = tensors[EMBEDDING].shape
    if len(weight) != 2 or len(table) != 2 or bias != weight[:1] or weight[0] != table[1]:
        raise ModelError(
            f"{folder} has a projector of weight {list(weight)} and bias {list(bias)} beside embeddings of "
            f"{list(table)}; a linear layer as wide as the embeddings was expected, so fetch it again"
        )


def _check_rows(folder: Path, config: Mapping[str, object], rows: int) -> None:
    if config.get("vocab_size", rows) != rows:
        raise ModelError(
            f"{folder} has {rows} rows in {EMBEDDING} and vocab_size {config['vocab_size']!r:.40} in its "
            "config.json; take both from the same checkpoint"
        )


def _tokenizer_of(folder: Path, config: Mapping[str, object], rows: int) -> TextTokenizer:
    """The checkpoint's tokenizer; its sentencepiece file goes before a fast form that another made of it."""
    model = folder / "tokenizer.model"
    if not model.is_file():
        tokenizer = load_tokenizer(folder)
    elif (folder / "added_tokens.json").is_file():
        tokenizer = load_tokenizer(folder, prefer_original=True)
    else:
        new = rows - from_sentencepiece(model, ()).vocab_size
        v0, start_end = new in (2, 4), bool(config.get("mm_use_im_start_end", new > 2))
        tokenizer = load_tokenizer(folder, v0=v0, start_end=start_end, prefer_original=True)
    wanted = IMAGE_TOKENS if config.get("mm_use_im_start_end") else IMAGE_TOKENS[:1]
    last = max(tokenizer.token_id(token) for token in wanted)
    if last >= rows or tokenizer.vocab_size > rows:
        raise ModelError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens and the checkpoint {rows} rows in "
            f"{EMBEDDING}; take both from the same checkpoint"
        )
    return tokenizer


def _text_of(
    folder: Path, config: Mapping[str, object], rows: int, tokenizer: TextTokenizer
) -> tuple[TextShape, tuple[str, ...]]:
    """The decoder's numbers. Special ids are the tokenizer's: early conversions of LLaMA had others."""
    document = {**config, "model_type": "llama", "vocab_size": rows, "tie_word_embeddings": False}
    if "max_position_embeddings" not in config and "max_sequence_length" in config:
        document["max_position_embeddings"] = config["max_sequence_length"]
    ids = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    notes = tuple(
        f"{name} is {config[name]} in config.json and {value} in the tokenizer, which is right"
        for name, value in ids.items()
        if name != "pad_token_id" and config.get(name, value) != value
    )
    document |= {name: value for name, value in ids.items() if value is not None}
    try:
        return read_text(document), notes
    except (ModelError, ConfigError) as error:
        raise ModelError(
            f"{folder} cannot be converted: {error}; check its config.json, or fetch it again"
        ) from error


# ---------------------------------------------------------------- a projector and its base


def _with_projector(file: Path, base: Path, start_end: bool) -> Original:
    config = _base_config(base)
    found = read_projector_file(file)
    stored = open_tensors(base)
    for name in (EMBEDDING, HEAD):
        if name not in stored:
            raise ModelError(f"{base} has no {name}; --base is the folder of a LLaMA or Vicuna")
    width, rows = stored[EMBEDDING].shape[1], stored[EMBEDDING].shape[0]
    if found.linear.weight.shape[0] != width:
        raise ModelError(
            f"the projector in {file} gives embeddings of width {found.linear.weight.shape[0]} and {base} is "
            f"{width} wide; take the base that it was trained for"
        )
    tokenizer = _extended_tokenizer(base, rows, start_end)
    new = tokenizer.vocab_size - rows
    trained = _trained_rows(file, found.rows, new, width)
    planned = {name: as_planned(tensor) for name, tensor in stored.items()}
    planned[EMBEDDING] = _extended(planned[EMBEDDING], new, trained)
    planned[HEAD] = _extended(planned[HEAD], new, None)
    for name, tensor in ((PROJECTOR_WEIGHT, found.linear.weight), (PROJECTOR_BIAS, found.linear.bias)):
        planned[name] = constant(name, tensor)
    whole = {**config, "vocab_size": rows + new, "mm_use_im_start_end": start_end}
    text, notes = _text_of(base, whole, rows + new, tokenizer)
    source = (
        f"{len(trained)} of them trained, from the projector's file" if trained is not None else "untrained"
    )
    if config.get("max_position_embeddings") == 4096:
        notes = (*notes, f"{base} is a LLaMA-2; v0, v1 and LLaVAR were trained on LLaMA-1, so make sure")
    return Original(
        kind=Kind.PROJECTOR,
        folder=base,
        config=whole,
        text=text,
        tokenizer=tokenizer,
        tokenizer_model=base / "tokenizer.model",
        tensors={k: v for k, v in planned.items() if not k.endswith(".rotary_emb.inv_freq")},
        inputs=(file, *files_of(base, stored.values())),
        notes=(*notes, f"{new} new tokens begin as the mean of the {rows} embeddings; {source}"),
    )


def _base_config(base: Path) -> dict[str, object]:
    if not base.is_dir():
        raise ModelError(f"--base {base} is no folder; name the folder of the LLaMA or Vicuna")
    config = folders.read_document(base, "config.json")
    if config.get("model_type") != "llama":
        raise ModelError(
            f"--base {base} has model_type {config.get('model_type')!r:.40}; a projector file goes onto a "
            "LLaMA or Vicuna"
        )
    return config


def _extended_tokenizer(base: Path, rows: int, start_end: bool) -> TextTokenizer:
    model = base / "tokenizer.model"
    if not model.is_file():
        raise ModelError(f"{base} has no tokenizer.model, to which the image tokens are added; copy it there")
    has = folders.read_document(base, "added_tokens.json") if (base / "added_tokens.json").is_file() else {}
    old = sorted(has, key=lambda token: str(has[token]).rjust(20))
    before = from_sentencepiece(model, old).vocab_size
    if before != rows:
        raise ModelError(
            f"the tokenizer in {base} has {before} tokens and its embedding {rows} rows; a base of LLaMA-1 "
            "has 32000 of both"
        )
    new = [token for token in IMAGE_TOKENS[: 3 if start_end else 1] if token not in has]
    return from_sentencepiece(model, [*old, *new])


def _trained_rows(file: Path, rows: Tensor | None, new: int, width: int) -> Tensor | None:
    """Embeddings of ``<im_start>`` and ``<im_end>`` (2, width) that stage 1 trained, if it saved them."""
    if rows is None or new < 2:
        return None
    if rows.ndim != 2 or rows.shape[0] < 2 or rows.shape[1] != width:
        raise ModelError(
            f"{file} has embeddings of shape {list(rows.shape)}; at least two of width {width} were expected"
        )
    return rows[-2:].clone()


def _extended(planned: Planned, new: int, trained: Tensor | None) -> Planned:
    """More rows, each the mean of the old ones; the last are ``trained`` where there are such."""

    def make() -> Iterator[Tensor]:
        old = value_of(planned)
        total = old[:0].double().sum(0)
        for start in range(0, len(old), _CHUNK):
            total += old[start : start + _CHUNK].double().sum(0)
        rows = (total / len(old)).to(old.dtype).expand(new, -1).clone()
        if trained is not None:
            rows[-len(trained) :] = trained.to(old.dtype)
        yield old.flatten()
        yield rows.flatten()

    return replace(planned, shape=(planned.shape[0] + new, planned.shape[1]), make=make)


# ---------------------------------------------------------------- small parts


def as_planned(tensor: LazyTensor) -> Planned:
    """A stored tensor as one to be written unchanged."""
    return Planned(name=tensor.name, shape=tensor.shape, dtype=tensor.dtype, make=tensor.load)


def parts_of(planned: Planned) -> Iterator[Tensor]:
    """The values, flat and in order, in as many parts as they are made in."""
    import torch

    made = planned.make()
    if isinstance(made, torch.Tensor):
        yield made.flatten()
    else:
        for part in made:
            yield part.flatten()


def value_of(planned: Planned) -> Tensor:
    """The whole tensor, its parts put together if it is made in parts."""
    import torch

    made = planned.make()
    return made if isinstance(made, torch.Tensor) else torch.cat([*parts_of(planned)]).reshape(planned.shape)


def hub_name(name: str) -> str | None:
    """The name that an original's tensor has in the hub's layout; None for those of the projector.

    Of names that the original does not have, the rest of the package is told as they are.
    """
    if name in (PROJECTOR_WEIGHT, PROJECTOR_BIAS):
        return None
    if name.startswith("model."):
        return f"language_model.{name}"
    return f"language_model.{name}" if name == HEAD else name


def original_name(key: str) -> str | None:
    """The inverse of :func:`hub_name`: None for a tensor that is not the decoder's."""
    return key.removeprefix("language_model.") if key.startswith("language_model.") else None


def constant(name: str, tensor: Tensor) -> Planned:
    """A tensor that is there already."""
    return Planned(name=name, shape=tuple(tensor.shape), dtype=tensor.dtype, make=lambda: tensor)


def files_of(folder: Path, tensors: Iterable[LazyTensor]) -> tuple[Path, ...]:
    """The files that a conversion reads of ``folder``: weights, configuration, tokenizer."""
    weights = {tensor.path for tensor in tensors}
    others = ("config.json", "tokenizer.model", "tokenizer.json", "added_tokens.json")
    return (*sorted(weights), *(folder / name for name in others if (folder / name).is_file()))


def is_v0(tokenizer: TextTokenizer) -> bool:
    """Whether the vocabulary says v0: only that version added a token for padding."""
    return tokenizer.lookup(V0_PAD) is not None


def misfit(folder: Path, name: str, found: tuple[int, ...] | None, wanted: tuple[int, ...] | None) -> str:
    """Why ``folder`` cannot be what its configuration describes, said of one tensor."""
    return (
        f"{folder} does not fit its config.json: {name} is {'missing' if found is None else list(found)} and "
        f"should be {'absent' if wanted is None else list(wanted)}; take both from the same checkpoint"
    )
