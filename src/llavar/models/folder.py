"""Checkpoint folders: finding, checking, reading and writing them. No transformers.

On disk the tensors carry the names of the hub's Llava checkpoints (``language_model.model.*``,
``vision_tower.vision_model.*`` ...), whatever the version of transformers that made or reads them.
Folders come from strangers: nothing in them is trusted before it was checked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from llavar.errors import FetchError, ModelError, NotFoundError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
_LFS_HEAD = b"version https://git-lfs"
_LARGEST_DOCUMENT = 64 << 20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DROPPED = re.compile(r"\.rotary_emb\.inv_freq$|\.embeddings\.position_ids$")
_FLAT_TOWERS = ("embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm.", "head.")


def resolve(model: str | Path, *, binaries: bool = False) -> Path:
    """The local folder of a model: the folder itself, or a hub id such as ``llava-hf/llava-1.5-7b-hf``.

    A folder never touches the network. Of a hub id, configuration, tokenizer and safetensors are fetched
    into the cache of ``huggingface_hub``; where it has no safetensors and ``binaries`` is set, ``.bin`` too.

    Raises:
        NotFoundError: neither a folder nor of the form of a hub id.
        ModelError: it is a file, or an adapter alone.
        FetchError: the hub does not give it.
    """
    path = Path(model)
    if model != "" and path.is_dir():
        _refuse_adapter(path)
        return path
    if model != "" and path.exists():
        raise ModelError(f"{str(model)!r} is a file; name the folder that holds config.json and the weights")
    if not isinstance(model, str) or not _HUB_ID.fullmatch(model):
        raise NotFoundError(f"there is no model folder {str(model)!r}, and it is not a hub id (owner/name)")
    return _from_hub(model, binaries)


def _refuse_adapter(folder: Path) -> None:
    """What peft writes beside no model is merged first: it answers only with its base."""
    whole = any((folder / name).exists() for name in (WEIGHTS, INDEX)) or any(folder.glob("pytorch_model*"))
    if whole or not (folder / ADAPTER).is_file():
        return
    base = read_document(folder, ADAPTER).get("base_model_name_or_path")
    merged = folder.parent / "model" / "config.json"
    beside = f" (the run merged it already: {merged.parent})" if merged.is_file() else ""
    raise ModelError(
        f"{folder} is a LoRA adapter and no whole model{beside}; merge it into its base: llavar convert "
        f"merge-lora {base or 'BASE'!s:.200} {folder} --out DIR"
    )


def _from_hub(name: str, binaries: bool) -> Path:
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.model", "*.jinja"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted))
        if binaries and not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*wanted, "*.bin"]))
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FetchError(
            f"no folder {name!r} is here, and the hub did not give a model of that name: {reason}"
        ) from error


def read_document(folder: Path, name: str) -> dict[str, object]:
    """A JSON object of a model folder.

    Raises:
        ModelError: absent, no JSON, no object, absurdly large, or a Git LFS pointer.
    """
    path = folder / name
    try:
        if path.stat().st_size > _LARGEST_DOCUMENT:
            raise ModelError(f"{path} has {path.stat().st_size} bytes; at most {_LARGEST_DOCUMENT} are read")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{folder} is not a complete model folder: {name} cannot be read") from error
    _refuse_pointer(path, data)
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON; fetch or write it again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a {type(value).__name__}; a JSON object was expected")
    return cast("dict[str, object]", value)


def _refuse_pointer(path: Path, head: bytes) -> None:
    if head.startswith(_LFS_HEAD):
        raise ModelError(
            f"{path} is a Git LFS pointer of {path.stat().st_size} bytes, not the file; run 'git lfs pull'"
        )


def hub_key(name: str) -> str | None:
    """The name of a tensor in the hub layout, given that of any version of transformers; None to drop it.

    Covers the module names of transformers 5 (``model.language_model.*``), towers without
    ``.vision_model``, and the doubled ``.model.model`` that some versions wrote.
    """
    if _DROPPED.search(name):
        return None
    if name.startswith(("model.language_model.", "model.vision_tower.", "model.multi_modal_projector.")):
        name = name.removeprefix("model.")
        if name.startswith("language_model."):
            name = "language_model.model." + name.removeprefix("language_model.").removeprefix("model.")
    elif name.startswith("lm_head."):
        name = f"language_model.{name}"
    tower = name.removeprefix("vision_tower.")
    if tower != name and tower.startswith(_FLAT_TOWERS):
        name = f"vision_tower.vision_model.{tower}"
    return name.replace("language_model.model.model.", "language_model.model.")


def hub_names(names: Iterable[str]) -> dict[str, str]:
    """Hub names to ``names``, without those that are dropped."""
    return {key: name for name in names if (key := hub_key(name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where a tensor lies: its file, its name and its shape there."""

    path: Path
    name: str
    shape: tuple[int, ...]


def open_weights(folder: Path) -> dict[str, Stored]:
    """What the safetensors of ``folder`` hold, by hub name. Reads headers only.

    Raises:
        ModelError: no safetensors, a missing or truncated shard, an LFS pointer, an index that points
            outside the folder, or two tensors of one name.
    """
    found: dict[str, Stored] = {}
    for path in _weight_files(folder):
        for name, shape in _header(path).items():
            key = hub_key(name)
            if key in found:
                raise ModelError(f"{path} holds {name!r}, which {found[key].path.name} holds too")
            if key is not None:
                found[key] = Stored(path=path, name=name, shape=shape)
    return found


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).exists():
        table = read_document(folder, INDEX).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise ModelError(f"{folder / INDEX} has no weight_map; fetch or write the checkpoint again")
        names = sorted({str(name) for name in cast("dict[str, object]", table).values()})
    else:
        names = [WEIGHTS]
    for name in names:
        if PurePosixPath(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise ModelError(f"{folder / INDEX} points to {name!r}; only .safetensors beside it are read")
        if not (folder / name).is_file():
            raise ModelError(_no_weights(folder, name))
    return [folder / name for name in names]


def _no_weights(folder: Path, name: str) -> str:
    if name != WEIGHTS:
        return f"{folder} is incomplete: {name} is missing; fetch or write the checkpoint again"
    old = next((path.name for path in sorted(folder.glob("*.bin"))), None)
    if old:
        return f"{folder} has its weights in {old}; only safetensors are read, so convert them first"
    return f"{folder} is not a complete model folder: neither {WEIGHTS} nor {INDEX} is there"


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError

    with path.open("rb") as file:
        _refuse_pointer(path, file.read(len(_LFS_HEAD)))
    try:
        with _open(path) as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged or truncated ({error}); fetch or write it again") from error


def _open(path: Path) -> Any:
    from safetensors import safe_open

    return safe_open(path, framework="pt")


def read_tensors(weights: Mapping[str, Stored], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The tensors themselves, on the CPU, as ``dtype`` (integers stay what they are) or as stored."""
    tensors: dict[str, Tensor] = {}
    for path in sorted({stored.path for stored in weights.values()}):
        with _open(path) as file:
            for key, stored in weights.items():
                if stored.path == path:
                    tensor = cast("Tensor", file.get_tensor(stored.name))
                    tensors[key] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
    return tensors


def check_weights(
    folder: Path, weights: Mapping[str, Stored], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Compare a checkpoint with what the model described by its ``config.json`` has.

    Raises:
        ModelError: a tensor is missing, or has another shape, or is one too many.
    """
    missing = sorted(expected.keys() - weights.keys())
    extra = sorted(weights.keys() - expected.keys())
    if missing or extra:
        kind, names = ("lacks", missing) if missing else ("holds", extra)
        raise ModelError(
            f"{folder} does not fit its config.json: it {kind} {len(names)} tensor"
            f"{'s' * (len(names) > 1)}{'' if missing else ' too many'}, such as {names[0]!r}"
        )
    for key, shape in expected.items():
        if weights[key].shape != shape:
            raise ModelError(
                f"{folder} does not fit its config.json: {key} is {list(weights[key].shape)} "
                f"and should be {list(shape)}"
            )


def write_weights(tensors: Mapping[str, Tensor], folder: Path, max_shard_bytes: int | None = None) -> None:
    """Write safetensors: one file, or several of at most ``max_shard_bytes`` each and an index.

    Raises:
        ModelError: one tensor alone is larger than ``max_shard_bytes``.
    """
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    shards = list(_shards(tensors, max_shard_bytes))
    single = len(shards) == 1
    names = [
        WEIGHTS if single else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        for i in range(1, len(shards) + 1)
    ]
    for name, shard in zip(names, shards, strict=True):
        save_file({key: tensors[key].contiguous() for key in shard}, folder / name, metadata={"format": "pt"})
        (folder / name).chmod(0o644)  # safetensors makes it readable for its owner alone
    if not single:
        total = sum(tensor.nbytes for tensor in tensors.values())
        table = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        write_document(folder, INDEX, {"metadata": {"total_size": total}, "weight_map": table})


def _shards(tensors: Mapping[str, Tensor], limit: int | None) -> Iterator[list[str]]:
    """Names in order, cut where the next one would not fit; the header counts too."""
    shard: list[str] = []
    room = used = 1024
    for key, tensor in tensors.items():
        size = tensor.nbytes + len(key) + 128
        if limit is not None and room + size > limit:
            raise ModelError(f"{key} needs {size} bytes and a file may have {limit}; raise max_shard_bytes")
        if limit is not None and used + size > limit:
            yield shard
            shard, used = [], room
        shard.append(key)
        used += size
    yield shard


def write_document(folder: Path, name: str, value: Mapping[str, object]) -> None:
    """Write a JSON object, keys sorted."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / name).write_text(text + "\n", encoding="utf-8")


def check_replaceable(folder: Path) -> None:
    """Refuse to take the place of something that is no model folder.

    Raises:
        ModelError: ``folder`` is a file, or holds files and no ``config.json``.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is a file and a folder is written; name another one, or remove it")
    if not (folder / "config.json").is_file() and any(folder.iterdir()):
        raise ModelError(f"{folder} exists and is no model folder; name another one, or remove it")


@contextmanager
def replacing(folder: Path) -> Generator[Path]:
    """A folder to write into that takes the place of ``folder`` when the block ends without an error.

    What an interrupted block leaves is a hidden ``.NAME.*`` beside it, never a half-written ``folder``.
    Files of an older ``folder`` that the block did not write (a tokenizer, a model card) are kept; older
    weights are not.

    Raises:
        ModelError: ``folder`` exists and is no model folder.
    """
    folder = folder.absolute()
    folder = folder.parent.resolve() / folder.name  # its path may lead through itself: OUT/../OUT
    if folder.is_symlink():  # what it points to is replaced, and the link stays
        folder = Path(os.path.realpath(folder))
    if folder.exists():
        check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)
        _swap(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(aside: Path, folder: Path) -> None:
    """After this, ``folder`` is the new one, and ``aside`` is gone or holds the old one."""
    if not folder.exists():
        aside.rename(folder)
        return
    for path in folder.iterdir():
        stale = path.name == INDEX or path.suffix == ".safetensors"
        if path.is_file() and not stale and not (aside / path.name).exists():
            shutil.copy2(path, aside / path.name)
    old = aside.with_name(f"{aside.name}.old")
    folder.rename(old)
    aside.rename(folder)
    old.rename(aside)
