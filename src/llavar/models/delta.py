"""Delta weights: what a LLaVA adds to the LLaMA that it was made from. Both directions, as a stream.

The rule of the original's ``apply_delta`` and ``make_delta``, per tensor of the LLaVA:

* not in the base: it must be the projector, and is stored as it is;
* the same shape: the difference;
* another shape: only the embedding and the head, whose first rows are differences; the rows of the added
  tokens are stored as they are.

The sum is taken in float32 and rounded to the dtype of the delta's tensor, which equals the original's
float16 sum bit for bit. The base is rounded to the dtype of the delta's embedding first, as the original does
by loading all of it as float16: so the base may lie here in any dtype, and the rotary frequencies, which stay
float32, come out as the original's do.

A difference that is rounded to float16 does not always lead back: b + fp16(t - b) can miss t where t is much
smaller than b. :func:`make` stores the differences exactly as the original does, so the original's tools read
them as ever, and beside them, in ``delta_exact.safetensors``, the values that they would miss. :func:`apply`
puts these in where the file is there, so that making and applying gives the target bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from llavar.errors import ModelError, NotFoundError
from llavar.models import stored, stream
from llavar.models.exact import EXACT, Missed, Patch, patched, read_exact
from llavar.models.folder import read_document, replacing
from llavar.models.stored import LazyTensor
from llavar.models.stream import MAX_SHARD_BYTES, Planned, Progress, WrittenFile

_EMBEDDING = "model.embed_tokens.weight"
_RESIZED = (_EMBEDDING, "lm_head.weight")
_PROJECTOR = "model.mm_projector."
_FREQUENCIES = ".rotary_emb.inv_freq"
_NORM = "model.norm.weight"
_PART = 1 << 22  # values handled at a time: 8 MB of float16
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What was written to ``out``.

    Of ``tensors``, ``summed`` were taken together with the base's, the others are stored as they are;
    ``dropped`` were left out (rotary frequencies that only one side has; every reader computes them).
    ``exact`` counts the values in ``delta_exact.safetensors``. ``warnings`` are sentences for the user.
    """

    out: Path
    tensors: int
    summed: int
    dropped: tuple[str, ...]
    exact: int
    files: tuple[WrittenFile, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A tensor of the LLaVA (delta or target) and the base's, if it has one, to be read as ``base_dtype``."""

    name: str
    own: LazyTensor
    base: LazyTensor | None
    base_dtype: torch.dtype

    def base_values(self, base: Tensor) -> Tensor:
        """The base's values as they enter the sum."""
        if not base.is_floating_point():
            return base.to(self.own.dtype)
        return base.to(self.base_dtype).to(self.own.dtype)


def apply(
    base: Path,
    delta: Path,
    out: Path,
    *,
    progress: Progress | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    checksums: bool = False,
) -> Merged:
    """Add ``delta`` to ``base``; write the model that results, in the original layout, to ``out``.

    Every tensor keeps the dtype of the delta's; configuration and tokenizer are the delta's. Written aside
    and renamed; memory is that of a few parts of a tensor, whatever the size of the model. ``checksums`` of
    the files cost about as much time as the merge.

    Raises:
        NotFoundError: there is no such folder.
        ModelError: a file is damaged; the base is another one (shape, vocabulary, LLaMA-2, itself a LLaVA);
            the delta is none; ``out`` is one of the inputs.
    """
    plan = plan_apply(base, delta, out)
    with replacing(out) as aside:
        _copy(delta, aside)
        files = stream.write(aside, plan.tensors, max_shard_bytes, progress=progress, checksums=checksums)
    return Merged(
        out=out,
        tensors=len(plan.tensors),
        summed=plan.summed,
        dropped=plan.dropped,
        exact=plan.exact,
        files=files,
        warnings=(*plan.warnings, *_without_tokenizer(delta)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What :func:`apply` is going to write, nothing read yet but headers; fields as in :class:`Merged`."""

    tensors: tuple[Planned, ...]
    summed: int
    dropped: tuple[str, ...]
    exact: int
    warnings: tuple[str, ...]


def plan_apply(base: Path, delta: Path, out: Path) -> Plan:
    """The tensors of ``delta`` with ``base`` added, by name; raises as :func:`apply`."""
    pairs, dropped, warnings = _pairs(base, delta, out, "delta")
    _check_difference(delta, pairs)
    exact = read_exact(delta / EXACT, {pair.name: pair.own for pair in pairs})
    return Plan(
        tensors=tuple(
            Planned(
                name=pair.name,
                shape=pair.own.shape,
                dtype=pair.own.dtype,
                make=_sum(pair, exact.get(pair.name)),
            )
            for pair in pairs
        ),
        summed=sum(pair.base is not None for pair in pairs),
        dropped=dropped,
        exact=sum(len(patch.at) for patch in exact.values()),
        warnings=warnings,
    )


def make(
    base: Path,
    target: Path,
    out: Path,
    *,
    progress: Progress | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    checksums: bool = False,
) -> Merged:
    """Write to ``out`` what :func:`apply` must add to ``base`` to get ``target``, a LLaVA in original layout.

    Tensors keep the target's dtype. Where float arithmetic leads back to the target everywhere, there is no
    ``delta_exact.safetensors``.

    Raises:
        NotFoundError: there is no such folder.
        ModelError: as :func:`apply`, said of the target.
    """
    pairs, dropped, warnings = _pairs(base, target, out, "target")
    with replacing(out) as aside, Missed(aside / ".missed") as missed:
        _copy(target, aside)
        plans = [
            Planned(
                name=pair.name, shape=pair.own.shape, dtype=pair.own.dtype, make=_difference(pair, missed)
            )
            for pair in pairs
        ]
        files = stream.write(aside, plans, max_shard_bytes, progress=progress, checksums=checksums)
        if missed.count:
            files = (*files, stream.write_file(aside / EXACT, missed.plans(), checksums=checksums))
    return Merged(
        out=out,
        tensors=len(pairs),
        summed=sum(pair.base is not None for pair in pairs),
        dropped=dropped,
        exact=missed.count,
        files=files,
        warnings=(*warnings, *_without_tokenizer(target)),
    )


# Arithmetic.


def _sum(pair: _Pair, patch: Patch | None) -> Callable[[], Iterator[Tensor]]:
    def parts() -> Iterator[Tensor]:
        for start, own, base in _parts(pair):
            part = own if base is None else _sum_of(own, pair.base_values(base))
            yield part if patch is None else patched(part, start, patch)

    return parts


def _difference(pair: _Pair, missed: Missed) -> Callable[[], Iterator[Tensor]]:
    def parts() -> Iterator[Tensor]:
        for start, own, base in _parts(pair):
            if base is None:
                yield own
                continue
            base = pair.base_values(base)
            part = torch.sub(own, base)
            wrong = _bits(_sum_of(part, base)) != _bits(own)
            if bool(wrong.any()):
                at = wrong.nonzero().flatten()
                missed.add(pair.name, Patch(at=at + start, is_=own[at]))
            yield part

    return parts


def _parts(pair: _Pair) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Flat parts in order: place of the first value, the LLaVA's values, the base's where there are any."""
    own = pair.own.load()
    flat = own.reshape(-1)
    if pair.base is None:
        for start in range(0, len(flat), _PART):
            yield start, flat[start : start + _PART], None
        return
    base = pair.base.load()
    width = own.shape[-1] if own.dim() == 2 else 1
    if base.shape[1:] != own.shape[1:]:
        base = _widened(base, width)  # narrower rows: rare, so it may take the memory
    shared = base.numel()
    flat_base = base.reshape(-1)
    for start in range(0, shared, _PART):
        end = min(start + _PART, shared)
        yield start, flat[start:end], flat_base[start:end]
    for start in range(shared, len(flat), _PART):
        yield start, flat[start : start + _PART], None


def _widened(base: Tensor, width: int) -> Tensor:
    """Rows filled up with zeros on the right: a sum leaves the other side's values there as they are."""
    wide = base.new_zeros(base.shape[0], width)
    wide[:, : base.shape[1]] = base
    return wide


def _sum_of(own: Tensor, base: Tensor) -> Tensor:
    # torch adds two half floats in float32 and rounds once, as the explicit sum does, without its copies.
    return torch.add(own, base)


def _bits(tensor: Tensor) -> Tensor:
    """As integers, so that signed zeros differ and a NaN equals itself."""
    return tensor.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.itemsize])


# What is refused.


def _pairs(
    base: Path, own: Path, out: Path, role: str
) -> tuple[list[_Pair], tuple[str, ...], tuple[str, ...]]:
    """The tensors of both sides by the rule, checked; the names left out; and warnings."""
    for path in (base, own):
        if not path.is_dir():
            raise NotFoundError(f"there is no model folder {path}; name one with config.json and weights")
    stored.check_out(out, base, own)
    bases, owns = stored.open_tensors(base), stored.open_tensors(own)
    _check_base(base, bases)
    _check_llava(own, owns, role)
    _check_vocabulary(base, own, bases, owns)
    warnings = _check_family(base, own)
    dropped = _alone(bases, owns)
    pairs = [
        _Pair(name=name, own=tensor, base=bases.get(name), base_dtype=owns[_EMBEDDING].dtype)
        for name, tensor in owns.items()
        if name not in dropped
    ]
    for pair in pairs:
        _check_pair(base, own, pair)
    _check_complete(base, own, bases, owns)
    return pairs, dropped, warnings


def _alone(bases: Mapping[str, LazyTensor], owns: Mapping[str, LazyTensor]) -> tuple[str, ...]:
    return tuple(sorted(name for name in bases.keys() ^ owns.keys() if name.endswith(_FREQUENCIES)))


def _check_base(base: Path, tensors: Mapping[str, LazyTensor]) -> None:
    kind = read_document(base, "config.json").get("model_type")
    if any(name.startswith(_PROJECTOR) for name in tensors) or kind == "llava":
        raise ModelError(f"{base} is itself a LLaVA; name the LLaMA that it was made from as --base")
    if _EMBEDDING not in tensors:
        raise ModelError(f"{base} has no {_EMBEDDING}; a LLaMA in the layout of transformers was expected")


def _check_llava(own: Path, tensors: Mapping[str, LazyTensor], role: str) -> None:
    read_document(own, "config.json")
    if any(name.startswith("multi_modal_projector.") for name in tensors):
        raise ModelError(f"{own} is in the stock layout; convert it first: llavar convert to-llava")
    if f"{_PROJECTOR}weight" not in tensors and f"{_PROJECTOR}0.weight" not in tensors:
        raise ModelError(
            f"{own} has no {_PROJECTOR}weight, so it is no LLaVA's; fetch the whole {role} with it"
        )


def _check_family(base: Path, own: Path) -> tuple[str, ...]:
    """LLaMA-1 and LLaMA-2 have the same shapes; their configurations tell them apart."""
    ours, theirs = read_document(own, "config.json"), read_document(base, "config.json")
    eps, wanted = theirs.get("rms_norm_eps"), ours.get("rms_norm_eps")
    found: list[str] = []
    positions = theirs.get("max_position_embeddings")
    stretched = ours.get("max_position_embeddings") not in (None, positions)
    if positions == 4096 and (stretched or (eps == 1e-5 and wanted != eps)):
        raise ModelError(
            f"{base} is a LLaMA-2 (rms_norm_eps {eps}, 4096 positions) and {own} was made from a LLaMA-1 "
            f"(rms_norm_eps {wanted}); use the LLaMA-1 of the same size, such as huggyllama/llama-13b"
        )
    if None not in (eps, wanted) and eps != wanted:
        found.append(
            f"rms_norm_eps is {eps} in {base} and {wanted} in {own}; check that it is the right base"
        )
    if theirs.get("bos_token_id") == 0 or theirs.get("eos_token_id") == 1:
        found.append(
            f"{base} has bos_token_id {theirs.get('bos_token_id')} and eos_token_id "
            f"{theirs.get('eos_token_id')}, as early wrong conversions of LLaMA do; its configuration and "
            "tokenizer are not used, but check that its weights are the right ones"
        )
    return tuple(found)


def _check_vocabulary(
    base: Path, own: Path, bases: Mapping[str, LazyTensor], owns: Mapping[str, LazyTensor]
) -> None:
    """Where rows were added, the ids of the added tokens say how many the right base has."""
    if _EMBEDDING not in owns:
        raise ModelError(f"{own} has no {_EMBEDDING}; fetch it again")
    rows, wanted = bases[_EMBEDDING].shape[0], owns[_EMBEDDING].shape[0]
    if rows == wanted:
        return
    expected = _first_added(own, wanted)
    if rows > wanted or (expected is not None and rows != expected):
        raise ModelError(
            f"{base} has a vocabulary of {rows} and {own}, with {wanted}, was made from one of "
            f"{expected if expected is not None else f'at most {wanted}'}; name the right base"
        )


def _first_added(own: Path, rows: int) -> int | None:
    """The lowest id of the added tokens that end the vocabulary; None where the folder does not say."""
    if not (own / "added_tokens.json").is_file():
        return None
    ids = {value for value in read_document(own, "added_tokens.json").values() if isinstance(value, int)}
    first = rows
    while first - 1 in ids:
        first -= 1
    return first if first < rows else None


def _check_pair(base: Path, own: Path, pair: _Pair) -> None:
    for tensor in (pair.own, pair.base):
        if tensor is not None and tensor.dtype not in (*_FLOATS, *_INTEGERS):
            raise ModelError(f"{tensor.path} holds {pair.name} as {tensor.dtype}; fetch it unquantized")
    if pair.base is None:
        if not pair.name.startswith(_PROJECTOR):
            raise ModelError(f"{own} holds {pair.name}, which {base} lacks; this is not the base it is of")
        return
    if (pair.own.dtype in _INTEGERS) != (pair.base.dtype in _INTEGERS):
        raise ModelError(f"{pair.name} is {pair.own.dtype} in {own} and {pair.base.dtype} in {base}")
    given, wanted = pair.base.shape, pair.own.shape
    grown = len(given) == len(wanted) == 2 and all(b <= o for b, o in zip(given, wanted, strict=True))
    if given != wanted and not (pair.name in _RESIZED and grown):
        raise ModelError(
            f"{pair.name} is {list(given)} in {base} and {list(wanted)} in {own}; name the base of that size"
        )


def _check_complete(
    base: Path, own: Path, bases: Mapping[str, LazyTensor], owns: Mapping[str, LazyTensor]
) -> None:
    extra = [name for name in bases if name not in owns and not name.endswith(_FREQUENCIES)]
    if extra:
        raise ModelError(
            f"{base} holds {extra[0]}, which {own} lacks: either another base, or {own} is incomplete"
        )


def _check_difference(delta: Path, pairs: list[_Pair]) -> None:
    """A difference of norms is near zero; a norm that is near the base's own belongs to a full model."""
    pair = next((pair for pair in pairs if pair.name == _NORM), None)
    if pair is None or pair.base is None:
        return
    own, base = pair.own.load().double(), pair.base.load().double()
    if float((own - base).abs().mean()) < 0.5 * float(base.abs().mean()):
        raise ModelError(
            f"{delta} is a whole model, not a delta (its {_NORM} is nearly the base's); "
            "use it as it is, without a base"
        )


# Files beside the weights.


def _copy(source: Path, aside: Path) -> None:
    for name in stored.copy_companions(source, aside):
        if name.endswith(".json"):
            read_document(aside, name)


def _without_tokenizer(own: Path) -> tuple[str, ...]:
    if any((own / name).is_file() for name in ("tokenizer.model", "tokenizer.json")):
        return ()
    return (f"{own} has no tokenizer; copy tokenizer.model and its .json files into the result",)
