"""What a run starts from: the model with its projector, and the rows that it can learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llavar import chat
from llavar.chat import Template
from llavar.data.cache import key
from llavar.data.mixture import Entry, mix, parse
from llavar.data.opened import Opened, open_data
from llavar.data.pictures import MARK, Pictures, PictureStore, open_pictures
from llavar.data.rows import Encoder, LazyRows, Measured, RowEncoder, measure
from llavar.data.source import RowError
from llavar.data.vision import unusable_names
from llavar.errors import ConfigError, ModelError, NotFoundError
from llavar.images import CLIP, WHOLE, Norm, Tiles, Transform
from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models import projector as projectors
from llavar.models._hf_training import is_tried
from llavar.models.attention import has_kernel
from llavar.models.build import build
from llavar.models.processor import read_norm, read_tiles
from llavar.models.projector_file import read_projector
from llavar.models.resolution import check_room, resize_tower
from llavar.models.shape import ProjectorLayout
from llavar.models.tokenizer import TextTokenizer, load_tokenizer
from llavar.records import Reject
from llavar.train import home
from llavar.train.config import Attention, Policy, Precision

RANDOM = "random"
"""Names a projector that begins anew."""

_LONG = 1024
"""Tokens of packs from which a CPU attends row by row unless told otherwise (benchmarks/train.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A stock Llava model in fp32, ready to train, with what belongs to it.

    ``layout`` is how its projector was kept; while it is trained that is ``identity`` or ``mlp``.
    ``template`` is what rows are written in, ``transform`` how pictures become square; each gives
    ``tiles.views`` inputs of the tower, of ``image_size`` pixels and ``image_tokens`` tokens.
    """

    module: Any
    folder: Path
    tokenizer: TextTokenizer
    template: Template
    transform: Transform
    layout: ProjectorLayout | None
    image_tokens: int
    image_size: int
    norm: Norm = CLIP
    tiles: Tiles = WHOLE


def start_of(
    name: str, vision_tower: str, out: Path, *, conversation: str = "", select_layer: int | None = None
) -> Path:
    """The folder of the whole Llava that a run in ``out`` starts from.

    A decoder alone is put together with ``vision_tower`` under ``out/start``, once.

    Raises:
        NotFoundError, FetchError: decoder or tower are not there.
        ModelError: a decoder without a tower, or parts that do not go together.
        ConfigError: a tower is named and ``name`` has its own.
    """
    folder = folders.resolve(name, binaries=True)
    kind = folders.read_document(folder, "config.json").get("model_type")
    if kind == "llava":
        if vision_tower:
            raise ConfigError(
                f"{folder} is a whole Llava model with its own tower; leave --vision-tower {vision_tower} out"
            )
        return folder
    if not vision_tower:
        raise ModelError(
            f"{folder} is a decoder alone (model_type {kind!r}); name the tower that it shall see with: "
            "--vision-tower DIR_OR_HUB_ID of a CLIP or SigLIP"
        )
    start = out / home.START
    if not (start / "config.json").is_file():
        layer = -2 if select_layer is None else select_layer
        build(name, vision_tower, start, conversation=conversation, select_layer=layer)
    return start


def load_model(
    name: str | Path,
    *,
    load: Callable[[Path, str], Any] | None = None,
    projector: str = "",
    conversation: str = "",
    transform: Transform | None = None,
    tiles: Tiles | None = None,
    tower_size: int = 0,
    feature_layer: int | None = None,
    attention: Attention = Attention.AUTO,
    precision: Precision = Precision.FP32,
    deterministic: bool = False,
    longest: int = 0,
    seed: int = 0,
) -> Model:
    """A whole Llava model, with another projector where one is named; ``load`` says how a folder is loaded.

    ``tiles`` stand in for those of the folder; a ``tower_size`` in pixels interpolates the positions of its
    tower. ``precision``, ``deterministic`` and ``longest`` (see :func:`attention_for`) are how it will be
    trained: not every attention goes with them.

    Raises:
        NotFoundError, FetchError: there is no such model or projector.
        ModelError: it is no Llava, or its projector has other widths.
        ConfigError: a setting does not go with this model.
    """
    folder = folders.resolve(name)
    found = attention_for(attention, precision, deterministic, longest=longest)
    module: Any = load(folder, found) if load else hf.load_llava(folder, attention=found)
    hf.disable_cache(module)
    layout = hf.projector_layout(module)
    if layout is ProjectorLayout.FOLD:
        hf.to_identity(module)
    if projector:
        put_projector(module, projector, seed)
        layout = layout or ProjectorLayout.IDENTITY
    if feature_layer is not None:
        _set_layer(module, feature_layer)
    if tower_size:
        resize_tower(module, tower_size)
    tokenizer = load_tokenizer(folder)
    asked = chat.get(conversation) if conversation else tokenizer.template()
    if conversation:
        source = chat.jinja_source(asked, start_end=tokenizer.has_start_end)
        tokenizer = replace(tokenizer, chat_template=source)
    vision = module.config.vision_config
    model = Model(
        module=module.train(),
        folder=folder,
        tokenizer=tokenizer,
        template=chat.for_training(asked),
        transform=transform or hf.read_transform(folder),
        layout=layout,
        image_tokens=hf.image_tokens(module),
        image_size=vision.image_size,
        norm=read_norm(folder),
        tiles=read_tiles(folder) if tiles is None else tiles,
    )
    positions = module.config.text_config.max_position_embeddings
    check_pictures(model, positions, "the context of its decoder")
    return model


def check_pictures(model: Model, limit: int, what: str) -> None:
    """Raises ConfigError where a picture as ``model`` sees it fills the ``limit`` tokens of ``what``."""
    patch = model.module.config.vision_config.patch_size
    check_room(model.tiles, model.image_tokens, limit, size=model.image_size, patch=patch, what=what)


def attention_for(
    asked: Attention, precision: Precision, deterministic: bool = False, *, longest: int = 0
) -> str:
    """What a model is trained with on this machine where ``asked`` is wanted.

    ``longest`` are the tokens of a pack, 0 where rows are padded.

    Raises:
        ConfigError: it cannot be trained with here.
    """
    on_gpu = torch.cuda.is_available()
    if asked is Attention.FLEX and not on_gpu:
        raise ConfigError(
            "attention flex cannot train on a CPU, where torch has no backward pass for it; "
            "choose eager, sdpa or varlen"
        )
    if asked is Attention.VARLEN and on_gpu and deterministic:
        raise ConfigError(
            "the gradients of attention varlen are summed in any order on a GPU; "
            "choose sdpa or eager, or leave --deterministic out"
        )
    if asked is not Attention.AUTO:
        return asked.value
    if not on_gpu:
        # Plain matrix products beat the fused attention on short rows, but compute all of a pack's scores.
        row_by_row = longest >= _LONG and is_tried()
        return (Attention.VARLEN if row_by_row else Attention.EAGER).value
    fits = precision is Precision.BF16 and not deterministic and has_kernel() and is_tried()
    return (Attention.VARLEN if fits else Attention.SDPA).value


def _set_layer(module: Any, layer: int) -> None:
    layers: int = module.config.vision_config.num_hidden_layers
    if not -layers - 1 <= layer <= layers:
        raise ConfigError(
            f"feature_layer is {layer} and the tower has {layers} layers; give {-layers - 1} to {layers}"
        )
    module.config.vision_feature_layer = layer


# The projector.


def put_projector(module: Any, source: str, seed: int = 0) -> None:
    """Put another projector into a model: from a run, a stock folder, an ``mm_projector.bin``, or anew.

    Raises:
        NotFoundError: there is nothing at ``source``.
        ModelError: it holds no single linear projector, or one of other widths.
    """
    first = module.model.multi_modal_projector.linear_1.weight
    text, vision = module.config.text_config.hidden_size, first.shape[1]
    linear = _random(text, vision, seed) if source == RANDOM else find_projector(Path(source))
    if tuple(linear.weight.shape) != (text, vision):
        raise ModelError(
            f"the projector of {source} is {list(linear.weight.shape)} and this model's is {[text, vision]}; "
            "take one that was trained between the same tower and decoder"
        )
    cast = projectors.Linear(weight=linear.weight.float(), bias=linear.bias.float())
    hf.set_projector(module, ProjectorLayout.IDENTITY, cast)


def find_projector(path: Path) -> projectors.Linear:
    """The single linear projector of a run, of a stock model folder, or of an original projector file."""
    if not path.exists():
        raise NotFoundError(f"there is no projector at {path}; name a run, a model or mm_projector.bin")
    if path.is_file():
        return read_projector(path)
    if (path / home.PROJECTOR).is_file():
        return read_projector(path / home.PROJECTOR)
    if (path / home.MODEL / "config.json").is_file():
        return _of_stock(path / home.MODEL)
    if (path / home.LOCK).exists():
        raise ModelError(f"the run in {path} has not finished; go on with llavar train {path}")
    return _of_stock(path)


def _of_stock(folder: Path) -> projectors.Linear:
    act = folders.read_document(folder, "config.json").get("projector_hidden_act", "gelu")
    prefix = "multi_modal_projector."
    stored = {key: value for key, value in folders.open_weights(folder).items() if key.startswith(prefix)}
    held = folders.read_tensors(stored, torch.float32)
    try:
        two = projectors.TwoLayer(
            weight_1=held[f"{prefix}linear_1.weight"],
            bias_1=held[f"{prefix}linear_1.bias"],
            weight_2=held[f"{prefix}linear_2.weight"],
            bias_2=held[f"{prefix}linear_2.bias"],
        )
    except KeyError as error:
        raise ModelError(f"{folder} lacks {error.args[0]}; name a folder of a whole Llava model") from None
    linear = projectors.from_identity(two) if act == "linear" else projectors.unfold(two)
    if linear is None:
        raise ModelError(f"the projector of {folder} has two layers of its own; a single one was expected")
    return linear


def _random(text: int, vision: int, seed: int) -> projectors.Linear:
    """As ``nn.Linear`` begins, which the original's projector is."""
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        layer = torch.nn.Linear(vision, text)
    return projectors.Linear(weight=layer.weight.detach(), bias=layer.bias.detach())


# Rows.


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows to learn from, and what was left out with its reason; ``digest`` is of all that is learned.

    ``indexed`` and ``measured`` are the seconds that finding and encoding all rows took, 0 where that was
    done by an earlier run.
    """

    encoded: LazyRows
    pictures: PictureStore
    rejects: Sequence[Reject]
    digest: str
    supervised: int
    indexed: float = 0.0
    measured: float = 0.0

    @property
    def tokens(self) -> int:
        return int(self.encoded.lengths.sum())


def read_rows(
    files: Collection[str],
    images: str,
    model: Model,
    *,
    max_length: int,
    bad_rows: Policy = Policy.STOP,
    bad_images: Policy = Policy.STOP,
    workers: int = 0,
    seed: int = 0,
    cache: Path | None = None,
) -> Rows:
    """Every row of ``files``, each a path with options (:func:`llavar.data.mixture.parse`).

    All rows are encoded once, in ``workers`` processes, so that each is known to be supervised or is
    reported; none is held. Whether pictures are there is looked up for every row; with ``bad_images=skip``
    each is also opened once, so that nothing can be missing later. ``seed`` is the mixture's, ``cache`` the
    folder of indices in place of the user's.

    Raises:
        ConfigError: rows were rejected and the policy is to stop, none is left, or no folder of images is
            named.
        NotFoundError, DataError: a file cannot be read.
    """
    entries = [parse(text) for text in files]
    opened = [open_data(entry, folder=cache) for entry in entries]
    encoder = encoder_of(model, max_length)
    found = [measure(each.rows, encoder, workers=workers, folder=cache) for each in opened]
    refused = [reject for measured in found for _, reject in sorted(measured.rejects.items())]
    obey(bad_rows, refused, "--bad-rows")

    stores = [store_of(each, place) for place, each in enumerate(opened)]
    pictures = Pictures(_common(opened, found, images), {mark[:-1]: s for mark, s in stores if s is not None})
    broken = [
        broken_in(each, measured, mark, pictures, bad_images, workers)
        for each, measured, (mark, _) in zip(opened, found, stores, strict=True)
    ]
    obey(bad_images, [reject for rejects in broken for reject in rejects.values()], "--bad-images")

    rejects = [*refused, *(reject for rejects in broken for reject in rejects.values())]
    marks = [mark for mark, _ in stores]
    return assembled(
        entries, opened, found, encoder, pictures, marks, broken=broken, rejects=rejects, seed=seed
    )


def assembled(
    entries: Sequence[Entry],
    opened: Sequence[Opened],
    found: Sequence[Measured],
    encoder: RowEncoder | Sequence[RowEncoder],
    pictures: PictureStore,
    marks: Sequence[str],
    *,
    broken: Sequence[Mapping[int, Reject]],
    rejects: Sequence[Reject],
    seed: int,
) -> Rows:
    """The rows of all files that are left, in one: what of each is known is in the same place of every list.

    ``broken`` are rows, by number, that have to be left out besides those that could not be measured.

    Raises:
        ConfigError: none is left.
    """
    kept = [_kept(measured, left_out) for measured, left_out in zip(found, broken, strict=True)]
    counts = [len(numbers) for numbers in kept]
    if not sum(counts):
        total = sum(len(each.rows) for each in opened)
        names = ", ".join(entry.path for entry in entries)
        raise ConfigError(f"none of the {total} rows of {names} is left to learn from")
    firsts = np.concatenate([[0], np.cumsum([len(each.rows) for each in opened])])
    mixture = mix(counts, entries, seed) if any(_is_mixed(entry) for entry in entries) else None
    rows = LazyRows(
        [each.rows for each in opened],
        encoder,
        numbers=np.concatenate([numbers + first for numbers, first in zip(kept, firsts, strict=False)]),
        lengths=np.concatenate([m.lengths[numbers] for m, numbers in zip(found, kept, strict=True)]),
        pictures=np.concatenate([_counts(m)[numbers] for m, numbers in zip(found, kept, strict=True)]),
        marks=marks,
        mixture=mixture,
    )
    return Rows(
        encoded=rows,
        pictures=pictures,
        rejects=rejects,
        digest=_digest(found, kept, entries),
        supervised=sum(int(m.supervised[numbers].sum()) for m, numbers in zip(found, kept, strict=True)),
        indexed=sum(each.seconds for each in opened),
        measured=sum(measured.seconds for measured in found),
    )


def encoder_of(model: Model, max_length: int) -> Encoder:
    """How rows become tokens for ``model``."""
    tokenizer = model.tokenizer
    return Encoder.known(
        tokenizer,
        f"{tokenizer.bos}\n{tokenizer.backend.to_str()}",
        model.template,
        image_tokens=model.image_tokens,
        views=model.tiles.views,
        start_end=tokenizer.has_start_end,
        max_length=max_length,
        unknown=tokenizer.unk_id,
    )


def store_of(opened: Opened, place: int) -> tuple[str, PictureStore | None]:
    """The mark that goes before the names of a source with pictures of its own, and these."""
    return ("", None) if opened.pictures is None else (f"{place}{MARK}", opened.pictures)


def _common(opened: Sequence[Opened], found: Sequence[Measured], images: str) -> PictureStore | None:
    """The pictures of all sources that have none of their own."""
    needed = ((o, m) for o, m in zip(opened, found, strict=True) if o.pictures is None and len(m.names))
    first = next(needed, None)
    if images:
        return open_pictures(Path(images)) if first is not None else None
    if first is not None:
        number = next(n for n in range(len(first[0].rows)) if first[1].pictures(n))
        row = first[0].rows.get(number)
        name = row.row if isinstance(row, RowError) else row.id
        raise ConfigError(f"row {name!r} has a picture and no folder of pictures is named; give --images")
    return None


def broken_in(
    opened: Opened, measured: Measured, mark: str, pictures: PictureStore, policy: Policy, workers: int
) -> dict[int, Reject]:
    """Rows, by number, with a picture that is missing or, where broken ones are skipped, broken."""
    if not len(measured.names):
        return {}
    names = (
        tuple(mark + name for name in measured.pictures(number)) for number in range(len(measured.lengths))
    )
    found = unusable_names(names, pictures, opened=policy is Policy.SKIP, workers=workers)
    return {number: replace(reject, id=_id(opened, number)) for number, reject in found.items()}


def _id(opened: Opened, number: int) -> str:
    row = opened.rows.get(number)
    return row.row if isinstance(row, RowError) else row.id


def _kept(measured: Measured, broken: Mapping[int, Reject]) -> NDArray[np.int64]:
    usable = measured.lengths > 0
    usable[list(broken)] = False
    return np.flatnonzero(usable)


def _counts(measured: Measured) -> NDArray[np.int32]:
    """How many pictures each row has: one more than there are separators between its names."""
    separators = np.concatenate([[0], np.cumsum(measured.names == 0, dtype=np.int64)])
    ends = np.asarray(measured.name_ends)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    return (separators[ends] - separators[starts] + (ends > starts)).astype(np.int32)


def _is_mixed(entry: Entry) -> bool:
    return entry.weight != 1 or entry.cap > 0 or entry.epochs != 1


def _digest(found: Sequence[Measured], kept: Sequence[NDArray[np.int64]], entries: Sequence[Entry]) -> str:
    parts = [
        (m.digest, n.tobytes(), e.weight, e.cap, e.epochs)
        for m, n, e in zip(found, kept, entries, strict=True)
    ]
    return key(*parts)[:16]


def obey(policy: Policy, rejects: Sequence[Reject], flag: str) -> None:
    """Raises:
    ConfigError: there are rejects and the policy, which ``flag`` sets, is to stop.
    """
    if policy is Policy.SKIP or not rejects:
        return
    shown = "; ".join(f"{r.id!r}: {r.reason} ({r.detail})" for r in rejects[:3])
    more = f"; and {len(rejects) - 3} more" if len(rejects) > 3 else ""
    raise ConfigError(
        f"{len(rejects)} row{'s' * (len(rejects) > 1)} cannot be used: {shown}{more}; repair them, or leave "
        f"them out with {flag} skip"
    )


def identity_of(folder: Path) -> str:
    """A hash that tells models apart: the configuration, and name, shape and size of what is stored.

    Of the weights themselves only the beginning and the end of each file is read: 26 GB take minutes.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted({stored.path for stored in folders.open_weights(folder).values()}):
        with path.open("rb") as file:
            digest.update(f"{path.name}:{path.stat().st_size}:".encode())
            digest.update(file.read(1 << 20))
            file.seek(max(0, path.stat().st_size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]
