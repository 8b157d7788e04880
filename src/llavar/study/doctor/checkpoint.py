"""What lies in a folder or in a file of weights, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

from llavar.errors import LlavarError
from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models import stored
from llavar.models.projector_file import PROJECTOR_BIAS, PROJECTOR_WEIGHT
from llavar.models.shape import ORIGINAL_CLASSES
from llavar.models.stored import LazyTensor
from llavar.models.tower import places
from llavar.study.doctor.findings import Finding, from_error, note, ok, problem
from llavar.study.doctor.stock import stock_findings
from llavar.study.doctor.tokenizer import EMBEDDING, Case, self_test, tokenizer_of

_NORM = "model.norm.weight"
_META = re.compile(r"consolidated\.\d+\.pth")
_LFS = b"version https://git-lfs"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHT_FILES = (".bin", ".safetensors", ".pth", ".pt")


class Kind(StrEnum):
    """What a folder or file is."""

    STOCK = "Llava in the stock layout"
    ORIGINAL = "checkpoint of the original LLaVA"
    DELTA = "delta of the original LLaVA"
    PROJECTOR = "projector alone"
    LLAMA = "LLaMA decoder (base)"
    DECODER = "decoder alone"
    TOWER = "vision tower"
    META = "LLaMA in Meta's own format"
    ADAPTER = "LoRA adapter"
    UNKNOWN = "nothing that is known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What lies there, what was found, and the bytes that its weights take in fp32 (0: not a whole model)."""

    kind: Kind
    findings: tuple[Finding, ...]
    nbytes: int = 0


def examine(path: Path) -> Examined:
    """Look at a folder or at one file of weights."""
    return _examine_folder(path) if path.is_dir() else _examine_file(path)


def _examine_file(path: Path) -> Examined:
    if _META.fullmatch(path.name):
        return Examined(kind=Kind.META, findings=(_meta(path),))
    if not path.is_file():  # reading it could block for ever
        device = problem("file", "it is a pipe or a device", "name a model folder or a file of weights")
        return Examined(kind=Kind.UNKNOWN, findings=(device,))
    try:
        tensors = stored.open_tensors(path)
    except LlavarError as error:
        return Examined(kind=Kind.UNKNOWN, findings=(from_error("file", error),))
    projector = [tensor for name, tensor in tensors.items() if name.endswith("mm_projector.weight")]
    if len(projector) == 1:
        return Examined(kind=Kind.PROJECTOR, findings=(_projector(path, projector[0]),))
    later = next((name for name in tensors if "mm_projector.0." in name), None)
    if later is not None:
        text = f"it has two layers ({later!r:.100}), as LLaVA-1.5's has"
        two = problem("projector", text, "use llava-hf's checkpoints of that model")
        return Examined(kind=Kind.UNKNOWN, findings=(two,))
    text = f"{len(tensors)} tensors, such as {next(iter(tensors))!r:.100}"
    return Examined(
        kind=Kind.UNKNOWN,
        findings=(note("file", text, "name the folder that it belongs to, for a look at the whole"),),
    )


def _projector(path: Path, weight: LazyTensor) -> Finding:
    if len(weight.shape) != 2:
        return problem("projector", f"its weight has the shape {list(weight.shape)}", "fetch it again")
    text, vision = weight.shape
    return note(
        "projector",
        f"one layer from a tower of width {vision} to a decoder of width {text}",
        f"join it with its LLaMA: llavar convert from-llava {path} --base LLAMA --vision-tower CLIP "
        "--out OUT",
    )


def _meta(path: Path) -> Finding:
    return problem(
        "format",
        f"{path.name} is in Meta's own format",
        "convert its folder with convert_llama_weights_to_hf.py of transformers first",
    )


def _examine_folder(folder: Path) -> Examined:
    findings = list(_pointers(folder))
    config, unread = _config(folder)
    kind = _kind_without_config(folder)
    if unread is not None and kind is None:
        findings.append(unread)
    if kind is Kind.META:
        meta = next(path for path in sorted(folder.iterdir()) if _META.fullmatch(path.name))
        return Examined(kind=kind, findings=(*findings, _meta(meta)))
    if kind is Kind.ADAPTER:
        merge = "merge it into its model: llavar convert merge-lora MODEL ADAPTER --out OUT"
        return Examined(kind=kind, findings=(*findings, note("format", "an adapter is no model", merge)))
    if kind is Kind.PROJECTOR:
        (file,) = folder.glob("*.bin")
        return Examined(kind=kind, findings=(*findings, *_examine_file(file).findings))
    tensors: Mapping[str, LazyTensor] = {}
    try:
        tensors = stored.open_tensors(folder)
        findings.append(_weights(tensors))
    except LlavarError as error:
        findings.append(from_error("weights", error))
    case = Case(folder=folder, config=config, tensors=tensors)
    kind = _kind_of(case)
    findings += _checks(kind, case)
    whole = kind in (Kind.STOCK, Kind.ORIGINAL, Kind.LLAMA, Kind.DECODER)
    nbytes = 4 * sum(tensor.numel for tensor in tensors.values()) if whole else 0
    return Examined(kind=kind, findings=tuple(findings), nbytes=nbytes)


def _config(folder: Path) -> tuple[Mapping[str, object], Finding | None]:
    try:
        return folders.read_document(folder, "config.json"), None
    except LlavarError as error:
        return {}, from_error("config.json", error)


def _kind_without_config(folder: Path) -> Kind | None:
    """Folders that are recognised by their files."""
    names = [path.name for path in folder.iterdir()]
    if any(_META.fullmatch(name) for name in names):
        return Kind.META
    if "adapter_config.json" in names:
        return Kind.ADAPTER
    weights = [name for name in names if name.endswith(_WEIGHT_FILES)]
    if "config.json" not in names and len(weights) == 1 and weights[0].endswith(".bin"):
        return Kind.PROJECTOR
    return None


def _pointers(folder: Path) -> Iterator[Finding]:
    """Files that Git LFS has not fetched."""
    found: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(_LFS):
            found.append(path.name)
    if found:
        named = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        yield problem(
            "files", f"{named}: a Git LFS pointer, not the file", "run 'git lfs pull' in the folder"
        )


def _weights(tensors: Mapping[str, LazyTensor]) -> Finding:
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    files = {tensor.path for tensor in tensors.values()}
    size = sum(tensor.nbytes for tensor in tensors.values())
    numbers = sum(tensor.numel for tensor in tensors.values())
    return ok(
        "weights",
        f"{len(tensors)} tensors, {numbers:,} numbers as {', '.join(dtypes)}, {size / 1e9:.2f} GB "
        f"in {len(files)} file{'s' * (len(files) > 1)}",
    )


def _kind_of(case: Case) -> Kind:
    classes = case.config.get("architectures")
    named = str(cast("list[object]", classes)[0]) if isinstance(classes, list) and classes else ""
    kind = case.config.get("model_type")
    if kind in ("clip", "clip_vision_model", "siglip", "siglip_vision_model"):
        return Kind.TOWER
    if named == hf.ARCHITECTURE or (
        kind == "llava" and named not in ORIGINAL_CLASSES and PROJECTOR_WEIGHT not in case.tensors
    ):
        return Kind.STOCK
    if named in ORIGINAL_CLASSES or PROJECTOR_WEIGHT in case.tensors or "mm_vision_tower" in case.config:
        return Kind.DELTA if _is_delta(case) else Kind.ORIGINAL
    if kind == "llama":
        return Kind.LLAMA
    return Kind.DECODER if named.endswith("ForCausalLM") else Kind.UNKNOWN


def _is_delta(case: Case) -> bool:
    """The norms of a trained decoder are near 1, and what is left of them without a base is near 0."""
    norm = case.tensors.get(_NORM)
    try:
        return norm is not None and float(norm.load().float().abs().mean()) < 0.1
    except LlavarError:
        return False


def _checks(kind: Kind, case: Case) -> Iterator[Finding]:
    if kind is Kind.STOCK:
        yield from stock_findings(case)
    elif kind in (Kind.ORIGINAL, Kind.DELTA):
        yield from _original(kind, case)
    elif kind in (Kind.LLAMA, Kind.DECODER):
        yield from _decoder(kind, case)
    elif kind is Kind.TOWER:
        yield note("use", "a tower is a part of a model", "name it as --vision-tower")
    elif case.config:
        yield problem(
            "config.json",
            f"model_type {case.config.get('model_type')!r:.60} is not known here",
            "name a Llava, a checkpoint of the original, a decoder or a vision tower",
        )


# ---------------------------------------------------------------- the original's


def _original(kind: Kind, case: Case) -> Iterator[Finding]:
    extra = " --base LLAMA" if kind is Kind.DELTA else ""
    yield note(
        "layout",
        "the original's, which no maintained engine loads",
        f"llavar convert from-llava {case.folder}{extra} --vision-tower CLIP --out OUT",
    )
    if case.tensors and not {PROJECTOR_WEIGHT, PROJECTOR_BIAS} <= case.tensors.keys():
        yield problem(
            "projector",
            f"there is no {PROJECTOR_WEIGHT} with its bias",
            "if you have mm_projector.bin: llavar convert from-llava mm_projector.bin --base FOLDER",
        )
    yield from _rows(case)
    if _config(case.folder)[1] is None:  # an empty one is told as well
        yield from _tower(case)
        yield from _model_type(case)
    if kind is Kind.ORIGINAL:
        yield from _family(case)
    tokenizer, found = tokenizer_of(case)
    yield from found
    if tokenizer is not None:
        yield from self_test(case, tokenizer)


def _model_type(case: Case) -> Iterator[Finding]:
    told = case.config.get("model_type")
    if told not in ("llava", "llama"):
        yield problem(
            "config.json",
            f"model_type is {told!r:.60}, and llava was expected",
            "take config.json and weights from the same checkpoint",
        )


def _tower(case: Case) -> Iterator[Finding]:
    named = case.config.get("mm_vision_tower") or case.config.get("vision_tower")
    remedy = "say --vision-tower DIR, a folder of openai/clip-vit-large-patch14 or its -336"
    if not isinstance(named, str) or not named or len(named) > 1000 or "\0" in named:
        yield problem("vision tower", f"config.json names none (mm_vision_tower is {named!r:.60})", remedy)
        return
    here = next((place for place in places(case.folder, named) if (place / "config.json").is_file()), None)
    if here is not None:
        yield ok("vision tower", f"{named}, found at {here}")
    elif _HUB_ID.fullmatch(named):
        yield note("vision tower", f"{named}, fetched from the hub when it is needed", remedy)
    else:
        relative = not Path(named).is_absolute()
        yield problem(
            "vision tower",
            f"{named!r} is a {'relative path from where training ran' if relative else 'path'}, and nothing "
            "is there",
            remedy,
        )


# ---------------------------------------------------------------- decoders


def _decoder(kind: Kind, case: Case) -> Iterator[Finding]:
    yield note(
        "use",
        "a decoder cannot see pictures",
        f"put it together with a tower: llavar convert build --decoder {case.folder} --vision-tower CLIP "
        "--out OUT" + ("; or name it as --base of a delta" if kind is Kind.LLAMA else ""),
    )
    yield from _rows(case)
    if kind is Kind.LLAMA:
        yield from _family(case)
    tokenizer, found = tokenizer_of(case)
    yield from found
    if tokenizer is not None and kind is Kind.LLAMA:
        yield from self_test(case, tokenizer)


def _rows(case: Case) -> Iterator[Finding]:
    """Vocabulary, width and depth, as the tensors have them and as ``config.json`` says."""
    table = case.tensors.get(EMBEDDING)
    if table is None or len(table.shape) != 2:
        if case.tensors:
            yield problem("shapes", f"there is no {EMBEDDING}", "fetch the whole checkpoint")
        return
    layers = {int(m[1]) for name in case.tensors if (m := re.match(r"model\.layers\.(\d{1,4})\.", name))}
    found = {
        "vocab_size": table.shape[0],
        "hidden_size": table.shape[1],
        "num_hidden_layers": max(layers, default=-1) + 1,
    }
    wrong = {name: value for name, value in found.items() if case.config.get(name, value) != value}
    for name, value in wrong.items():
        yield problem(
            "shapes",
            f"config.json has {name} {case.config[name]!r:.40}, and the tensors have {value}",
            "take config.json and weights from the same checkpoint",
        )
    if len(layers) != found["num_hidden_layers"]:
        yield problem(
            "shapes", f"{found['num_hidden_layers'] - len(layers)} layers are missing", "fetch it again"
        )
    elif not wrong:
        yield ok("shapes", ", ".join(f"{name} {value}" for name, value in found.items()))


def _family(case: Case) -> Iterator[Finding]:
    """LLaMA-1 and LLaMA-2 have the same shapes at 7B and 13B; only these two numbers tell them apart."""
    eps, positions = case.config.get("rms_norm_eps"), case.config.get("max_position_embeddings")
    if case.config.get("model_type") in ("llama", "llava") and (eps, positions) == (1e-5, 4096):
        yield note(
            "family",
            "LLaMA-2 (rms_norm_eps 1e-05, 4096 positions); deltas of LLaVA v0, v1 and LLaVAR do not fit it",
            "take the LLaMA-1 of the same size as --base, such as huggyllama/llama-13b",
        )
    elif eps == 1e-6:
        yield ok("family", "LLaMA-1 by its rms_norm_eps of 1e-06")
    ids = case.config.get("bos_token_id"), case.config.get("eos_token_id")
    if ids in ((0, 1), (0, None), (None, 1)):
        yield note(
            "config.json",
            f"bos_token_id {ids[0]} and eos_token_id {ids[1]}: an early, wrong conversion of LLaMA "
            "(decapoda)",
            "conversion takes 1 and 2 from the tokenizer; for other programs write them into config.json",
        )
