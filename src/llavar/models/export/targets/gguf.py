"""llama.cpp: a GGUF file of the text model and one of tower and projector (``mmproj``). Experimental.

llama.cpp puts CLIP's class token behind the patches and then reads the rows as if it stood before them
(ggml-org/llama.cpp#25814), so every LLaVA with a CLIP tower sees its picture one patch further than it was
trained with. Weights cannot repair that. What can be right is: vocabulary, text, tensors, projector.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llavar.errors import ModelError
from llavar.images import Transform
from llavar.models import _hf as hf
from llavar.models.export.base import Checked, Options, Order, OutType
from llavar.models.export.engine import SCRIPT, script, tile_notes
from llavar.models.export.ggml import files, tensors
from llavar.models.export.ggml.files import Value
from llavar.models.export.ggml.template import for_marks
from llavar.models.export.ggml.vocabulary import Kind, Vocabulary, vocabulary
from llavar.models.export.source import Source, described, image_token
from llavar.models.processor import norm_of
from llavar.models.shape import FeatureSelect, LlavaShape
from llavar.version import __version__

_MARK = "<__media_0a1B__>"
_PROBES = (
    "What does the sign say?",
    "What is the number in the picture, and what  is below it?",
    "Is the word 'OPEN' written in the first line? Answer: yes or no.",
    "Read everything.\nThen count the circles of 3.50 EUR (tax 19 %)!",
)
_FOREIGN = "Où est « l'été » 東京 \U0001f600?"

_CARD = """\
# {name}

Files for llama.cpp, written by `llavar convert export --to gguf` {version} from `{source}`; large tensors
are in {outtype}.

**Experimental: answers about pictures differ from the model's.** llama.cpp puts the class token of CLIP
behind the patches and reads the rows as if it stood before them (ggml-org/llama.cpp#25814), for every LLaVA
with a CLIP tower. Text alone is right. Where answers must be right, use `llavar serve` or the export to vllm.

```
sh {script}
```
starts `llama-server` on 127.0.0.1:8080; further arguments go to it. It fetches whatever URL a request names,
so let only `data:` URLs through to it.

| file | what |
|---|---|
| `{text}` | decoder, vocabulary, chat template |
| `{mmproj}` | tower and projector |

## Worth knowing
{notes}

## Check
{checked}
"""


class _Gguf:
    takes = frozenset({"--outtype"})

    def refuse(self, order: Order) -> None:
        files.gguf_package()
        source = order.source
        shape = described(source)
        if shape.select is not FeatureSelect.DEFAULT:
            raise ModelError(
                f"{source.folder} projects the class token too (vision_feature_select_strategy "
                f"{shape.select.value}), which llama.cpp does not; use llavar serve or the export to vllm"
            )
        if _layers_run(shape) < 1:
            raise ModelError(
                f"{source.folder} projects the embeddings below the first layer of the tower "
                f"(vision_feature_layer {shape.vision_feature_layer}), which llama.cpp does not"
            )
        words = vocabulary(source.folder, source.tokenizer, shape.text.vocab)
        _check_prompts(source, shape, words)

    def nbytes(self, order: Order) -> int:
        source, outtype = order.source, _outtype(order.options)
        shape = described(source)
        parts = (
            *tensors.decoder(source, shape, outtype),
            *tensors.tower_and_projector(source, shape, outtype),
        )
        return sum(part.nbytes for part in parts)

    def notes(self, order: Order) -> tuple[str, ...]:
        source = order.source
        shape = described(source)
        notes = [
            "experimental: llama.cpp puts the class token behind the patches, which changes answers about "
            "pictures (ggml-org/llama.cpp#25814)",
            "llama.cpp pads pictures to a square like the model but resizes them bilinearly, not bicubically"
            if source.transform is Transform.PAD
            else f"the model takes pictures by the transform {source.transform.value}; llama.cpp pads them",
        ]
        words = vocabulary(source.folder, source.tokenizer, shape.text.vocab)
        if words.kind is Kind.BEST_PATH:
            notes.append(
                "ids are equal for printable ASCII and line ends; other characters, which the tokenizer "
                "folds or marks one by one as unknown, are one unknown token in llama.cpp"
            )
        return (*tile_notes(source), *notes)

    def write(self, order: Order, aside: Path) -> Mapping[str, str | None]:
        parts = _files(order)
        total = sum(part.nbytes for _, _, _, some in parts for part in some)
        advance = _counter(order, total)
        for name, architecture, values, some in parts:
            files.write(aside / name, architecture, values, some, advance)
        path = aside / SCRIPT
        path.write_text(script("llama.cpp", _lines(order.name)), encoding="utf-8")
        path.chmod(0o755)
        return {}

    def check(self, order: Order, aside: Path) -> Checked:
        found = [files.compare(aside / name, values, some) for name, _, values, some in _files(order)]
        count, equal = sum(one.tensors for one in found), sum(one.equal for one in found)
        largest = max(one.largest for one in found)
        source = order.source
        shape = described(source)
        words = vocabulary(source.folder, source.tokenizer, shape.text.vocab)
        prompts = _check_prompts(source, shape, words)
        return Checked(
            sentence=f"Read again by the gguf package: {count} tensors with the names, shapes and values "
            f"that were meant, {equal} of them equal to the bit, largest difference {largest:.1e} of a "
            f"tensor's largest value; the ids of {prompts} prompts, as llama.cpp encodes them, equal to the "
            "tokenizer's. llama.cpp itself was not run.",
            figures={"tensors": count, "tensors_equal": equal, "difference": largest, "prompts": prompts},
        )

    def card(self, order: Order, checked: Checked) -> str:
        text, mmproj = _names(order.name)
        return _CARD.format(
            name=order.name,
            version=__version__,
            source=order.source.name,
            outtype=_outtype(order.options).value,
            script=SCRIPT,
            text=text,
            mmproj=mmproj,
            notes="".join(f"- {note}.\n" for note in self.notes(order)).rstrip(),
            checked=checked.sentence,
        )

    def command(self, folder: Path) -> str:
        return f"sh {shlex.quote(str(folder / SCRIPT))}"


def _outtype(options: Options) -> OutType:
    return options.outtype or OutType.F16


def _names(name: str) -> tuple[str, str]:
    return f"{name}.gguf", f"mmproj-{name}.gguf"


def _lines(name: str) -> str:
    text, mmproj = _names(name)
    return (
        f'exec llama-server --model "$here"/{shlex.quote(text)} --mmproj "$here"/{shlex.quote(mmproj)} \\\n'
        '    --jinja --host 127.0.0.1 --port 8080 "$@"'
    )


def _counter(order: Order, total: int) -> Callable[[int], None]:
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        if order.progress is not None:
            order.progress(done, total)

    return advance


# ---------------------------------------------------------------- what stands in the files


def _files(order: Order) -> list[tuple[str, str, dict[str, Value], list[tensors.Part]]]:
    """Name, architecture, values and tensors of both files."""
    source, outtype = order.source, _outtype(order.options)
    shape = described(source)
    words = vocabulary(source.folder, source.tokenizer, shape.text.vocab)
    text, mmproj = _names(order.name)
    common: dict[str, Value] = {"general.name": order.name, "general.file_type": files.file_type(outtype)}
    template = for_marks(source.tokenizer, image_token(source))
    return [
        (
            text,
            "llama",
            {**common, **_text_values(shape), **files.tokenizer_values(words, template)},
            [*tensors.decoder(source, shape, outtype)],
        ),
        (
            mmproj,
            "clip",
            {**common, **_vision_values(shape)},
            [*tensors.tower_and_projector(source, shape, outtype)],
        ),
    ]


def _text_values(shape: LlavaShape) -> dict[str, Value]:
    text = shape.text
    return {
        "general.type": "model",
        "llama.vocab_size": text.vocab,
        "llama.context_length": text.max_positions,
        "llama.embedding_length": text.hidden,
        "llama.block_count": text.layers,
        "llama.feed_forward_length": text.mlp,
        "llama.attention.head_count": text.heads,
        "llama.attention.head_count_kv": text.kv_heads,
        "llama.attention.key_length": text.head_dim,
        "llama.attention.value_length": text.head_dim,
        "llama.attention.layer_norm_rms_epsilon": float(text.eps),
        "llama.rope.dimension_count": text.head_dim,
        "llama.rope.freq_base": float(text.rope_theta),
    }


def _vision_values(shape: LlavaShape) -> dict[str, Value]:
    vision = shape.vision
    norm = norm_of("clip_vision_model")
    values: dict[str, Value] = {
        "general.type": "mmproj",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": vision.act == "gelu",
        "clip.vision.image_size": vision.image_size,
        "clip.vision.patch_size": vision.patch_size,
        "clip.vision.embedding_length": vision.hidden,
        "clip.vision.feed_forward_length": vision.mlp,
        "clip.vision.block_count": vision.layers,
        "clip.vision.projection_dim": shape.text.hidden,
        "clip.vision.attention.head_count": vision.heads,
        "clip.vision.attention.layer_norm_epsilon": float(vision.eps),
        "clip.vision.image_mean": list(norm.mean),
        "clip.vision.image_std": list(norm.std),
    }
    if _layers_run(shape) != vision.layers - 1:  # what llama.cpp runs where nothing is said
        values["clip.vision.feature_layer"] = [_layers_run(shape)]
    return values


def _layers_run(shape: LlavaShape) -> int:
    """How many layers of the tower are run: hidden states count from the embeddings."""
    layer = shape.vision_feature_layer
    return layer if layer >= 0 else shape.vision.layers + 1 + layer


# ---------------------------------------------------------------- prompts


def _check_prompts(source: Source, shape: LlavaShape, words: Vocabulary) -> int:
    """Compare ids of prompts with those of the model's own tokenizer; returns how many were compared.

    Raises:
        ModelError: a prompt has other ids.
    """
    stock: Any = hf.stock_tokenizer(source.folder)
    token = image_token(source)
    template = for_marks(source.tokenizer, token)
    probes = _PROBES if words.kind is Kind.BEST_PATH else (*_PROBES, _FOREIGN)
    count = 0
    for question in probes:
        for theirs, ours in _layouts(question):
            text: str = stock.apply_chat_template(theirs, tokenize=False, add_generation_prompt=True)
            wide = text.replace(token, token * shape.image_tokens)
            wanted = source.tokenizer.encode(wide)
            marked: str = stock.apply_chat_template(
                ours, tokenize=False, add_generation_prompt=True, chat_template=template
            )
            found = _as_llama_cpp(marked, words, shape)
            if found != wanted:
                raise ModelError(
                    f"llama.cpp would encode a prompt of {source.folder} otherwise than its tokenizer does "
                    f"({len(found)} tokens and {len(wanted)}, for {question[:40]!r}), so it cannot be "
                    "exported; use llavar serve or the export to vllm"
                )
            count += 1
    return count


def _layouts(question: str) -> list[tuple[list[Any], list[Any]]]:
    """Conversations as parts, and as llama.cpp hands them over."""
    text, picture = {"type": "text", "text": question}, {"type": "image"}

    def asked(content: object) -> dict[str, object]:
        return {"role": "user", "content": content}

    answered = {"role": "assistant", "content": "It says: OPEN."}
    return [
        ([asked([text, picture])], [asked(question + _MARK)]),
        ([asked([picture, text])], [asked(_MARK + question)]),
        ([asked(question)], [asked(question)]),
        (
            [asked([text, picture]), answered, asked(question)],
            [asked(question + _MARK), answered, asked(question)],
        ),
    ]


def _as_llama_cpp(text: str, words: Vocabulary, shape: LlavaShape) -> list[int]:
    """``<s>`` once, then each stretch between marks alone, the picture's tokens in place of the marks."""
    stretches = text.removeprefix(words.tokens[words.bos]).split(_MARK)
    ids = [words.bos]
    for number, stretch in enumerate(stretches):
        ids += [shape.image_token_id] * shape.image_tokens * (number > 0)
        ids += words.encode(stretch)
    return ids


TARGET = _Gguf()
