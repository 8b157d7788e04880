"""GGUF files: written tensor by tensor, read again and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llavar.errors import MissingExtraError, ModelError
from llavar.models.export.base import OutType
from llavar.models.export.ggml.tensors import Part
from llavar.models.export.ggml.vocabulary import Vocabulary

Value = str | int | float | bool | list[str] | list[int] | list[float]
"""What stands behind a key. Whole numbers are written as uint32, in lists as int32."""

_STEPS_OF_Q8 = 127
_FILE_TYPES = {OutType.F32: 0, OutType.F16: 1, OutType.Q8_0: 7}


def gguf_package() -> Any:
    """The package ``gguf``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError("GGUF files need the extra 'gguf'; pip install 'llavar[gguf]'") from error
    return gguf


def file_type(outtype: OutType) -> int:
    """``general.file_type``: what most tensors are."""
    return _FILE_TYPES[outtype]


def write(
    path: Path,
    architecture: str,
    values: Mapping[str, Value],
    parts: Sequence[Part],
    advance: Callable[[int], None],
) -> None:
    """Write a file; tensors are made when their turn comes. ``advance`` is told the bytes of each."""
    gguf = gguf_package()
    writer: Any = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        _put(writer, key, value)
    kinds = _kinds(gguf)
    for part in parts:
        quantized = part.kept is OutType.Q8_0
        dtype = np.dtype({OutType.F32: np.float32, OutType.F16: np.float16}.get(part.kept, np.uint8))
        shape = gguf.quant_shape_to_byte_shape(part.shape, kinds[part.kept]) if quantized else part.shape
        writer.add_tensor_info(part.name, shape, dtype, part.nbytes, raw_dtype=kinds[part.kept])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for part in parts:
            writer.write_tensor_data(_kept(gguf, part))
            advance(part.nbytes)
    except OSError as error:
        raise ModelError(
            f"{path.name} cannot be written ({error.strerror}); make room or name a folder on another disk"
        ) from error
    finally:
        writer.close()


def _put(writer: Any, key: str, value: Value) -> None:
    """The order matters: a bool is an int for Python."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)


def _kinds(gguf: Any) -> dict[OutType, Any]:
    kinds = gguf.GGMLQuantizationType
    return {OutType.F32: kinds.F32, OutType.F16: kinds.F16, OutType.Q8_0: kinds.Q8_0}


def _kept(gguf: Any, part: Part) -> Any:
    array = part.array()
    if part.kept is OutType.Q8_0:
        return gguf.quants.quantize(array, _kinds(gguf)[OutType.Q8_0])
    return array.astype(np.float16) if part.kept is OutType.F16 else array


def tokenizer_values(words: Vocabulary, template: str) -> dict[str, Value]:
    """``tokenizer.*`` of the text model's file."""
    return {
        "tokenizer.ggml.model": words.kind.value,
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": list(words.tokens),
        "tokenizer.ggml.scores": list(words.scores),
        "tokenizer.ggml.token_type": [int(kind) for kind in words.types],
        "tokenizer.ggml.bos_token_id": words.bos,
        "tokenizer.ggml.eos_token_id": words.eos,
        "tokenizer.ggml.unknown_token_id": words.unk,
        "tokenizer.ggml.padding_token_id": words.pad,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": words.leading_blank,
        "tokenizer.chat_template": template,
    }


# ---------------------------------------------------------------- reading again


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How many tensors were compared, how many were equal, and the largest difference.

    ``largest`` is relative to the largest value of its tensor.
    """

    tensors: int
    equal: int
    largest: float


def compare(path: Path, values: Mapping[str, Value], parts: Sequence[Part]) -> Compared:
    """Read ``path`` with the library's reader and compare names, shapes, types and values.

    Raises:
        ModelError: something is not what was meant, by more than the type it is kept in explains.
    """
    gguf = gguf_package()
    reader: Any = gguf.GGUFReader(path)
    for key, value in values.items():
        field = reader.get_field(key)
        if field is None or not _same(field.contents(), value):
            raise _failed(path, f"{key} is not what was written")
    stored = {tensor.name: tensor for tensor in reader.tensors}
    if stored.keys() != {part.name for part in parts}:
        raise _failed(path, "the names of the tensors are not those written")
    found = [_difference(gguf, path, stored[part.name], part) for part in parts]
    return Compared(tensors=len(found), equal=sum(one == 0 for one in found), largest=max(found, default=0.0))


def _failed(path: Path, what: str) -> ModelError:
    return ModelError(f"the export was written and does not pass its check: {path.name}: {what}")


def _same(found: object, value: Value) -> bool:
    if isinstance(value, float):
        return isinstance(found, float) and np.float32(value) == np.float32(found)
    if isinstance(value, list) and value and isinstance(value[0], float):
        return np.array_equal(np.asarray(found, dtype=np.float32), np.asarray(value, dtype=np.float32))
    return found == value


def _difference(gguf: Any, path: Path, tensor: Any, part: Part) -> float:
    """The largest difference from the values that were meant, relative to the largest of them."""
    if tuple(map(int, tensor.shape[::-1])) != part.shape or tensor.tensor_type != _kinds(gguf)[part.kept]:
        raise _failed(path, f"{part.name} has another shape or type than was written")
    wanted = part.array()
    found = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(part.shape)
    wrong = np.abs(found - wanted)
    if not bool((wrong <= _allowed(wanted, part.kept)).all()):
        raise _failed(
            path, f"{part.name} differs by {float(wrong.max()):.1e}, more than {part.kept} explains"
        )
    return float(wrong.max()) / max(float(np.abs(wanted).max()), 1e-30)


def _allowed(wanted: Any, kept: OutType) -> Any:
    """Half a step of the type, for each value."""
    if kept is OutType.F32:
        return np.float32(0)
    if kept is OutType.F16:
        return np.maximum(np.abs(wanted) * 2.0**-11, 2.0**-25)
    blocks = np.abs(wanted).reshape(-1, 32).max(axis=1, keepdims=True)
    # The scale is rounded to fp16, which 127 steps of it feel.
    steps = blocks / _STEPS_OF_Q8 * 0.5 + blocks * 2.0**-11 + 2.0**-24 * _STEPS_OF_Q8
    return np.broadcast_to(steps, (len(blocks), 32)).reshape(wanted.shape)
