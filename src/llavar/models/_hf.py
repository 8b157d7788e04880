# pyright: basic
"""What touches transformers, together with ``_hf_training``: stock Llava models built, loaded, and written.

transformers is imported inside functions, and only by them: it takes seconds. ``load_llava(..., lean=True)``
does without it where :mod:`llavar.models.lean` covers the checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llavar.chat import IMAGE_PATCH
from llavar.errors import ConfigError, ModelError
from llavar.images import WHOLE, Norm, Tiles, Transform
from llavar.models import _hf_training as training
from llavar.models import folder as folders
from llavar.models import lean as lean_model
from llavar.models import projector as projectors
from llavar.models.processor import TRANSFORM_KEY as TRANSFORM_KEY
from llavar.models.processor import has_class_token, norm_of, preprocessor_document, processor_document
from llavar.models.processor import read_transform as read_transform
from llavar.models.shape import (
    ORIGINAL_CLASSES,
    LlavaShape,
    ProjectorLayout,
    TextShape,
    VisionShape,
    text_document,
    vision_document,
)

if TYPE_CHECKING:
    from transformers import LlavaConfig

OLDEST = (5, 17)
ARCHITECTURE = "LlavaForConditionalGeneration"
_PREFIX = "multi_modal_projector."
_HEAD = "language_model.lm_head.weight"
_EMBEDDING = "language_model.model.embed_tokens.weight"


def require_transformers() -> None:
    """Refuse a transformers older than :data:`OLDEST`.

    Raises:
        ModelError: the installed version is too old.
    """
    version = metadata.version("transformers")
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise ModelError(
            f"transformers {version} is installed and {wanted} or later is needed; "
            f"pip install 'transformers>={wanted}'"
        )


def llava_class() -> Any:
    """``LlavaForConditionalGeneration`` of the installed transformers."""
    require_transformers()
    from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()  # its bar for reading weights would break into ours
    return LlavaForConditionalGeneration


def llava_config(shape: LlavaShape) -> LlavaConfig:
    """The stock configuration of ``shape``."""
    require_transformers()
    from transformers.models.llava.configuration_llava import LlavaConfig

    return LlavaConfig.from_dict(shape.config())


# Building.


def build_llava(shape: LlavaShape, *, seed: int, attention: str = "sdpa") -> nn.Module:
    """A stock model with random weights that depend on ``shape`` and ``seed`` alone, in float32.

    With the identity layout, ``linear_1`` is the projector and ``linear_2`` the frozen identity. A folded
    projector cannot be trained; build it with ``identity`` and fold it with :func:`save_llava`.

    Raises:
        ConfigError: the layout is ``fold``.
    """
    if shape.projector is ProjectorLayout.FOLD:
        raise ConfigError("a model cannot be built with projector=fold; take identity, and fold when saving")
    config = llava_config(shape)
    config._attn_implementation = training.implementation(attention)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = llava_class()(config)
    if shape.projector is ProjectorLayout.IDENTITY:
        two = _projector_of(model)
        first = projectors.Linear(weight=two.weight_1.clone(), bias=two.bias_1.clone())
        set_projector(model, ProjectorLayout.IDENTITY, first)
    return model


def skeleton(shape: LlavaShape) -> nn.Module:
    """A stock model without numbers (meta device): names, shapes and configuration."""
    config = llava_config(shape)
    with torch.device("meta"):
        return llava_class()(config)


def skeleton_of(document: Mapping[str, object]) -> nn.Module:
    """As :func:`skeleton`, of any ``config.json`` of a Llava.

    Raises:
        ModelError: transformers cannot make a model of it.
    """
    cls = llava_class()
    from transformers.models.llava.configuration_llava import LlavaConfig

    try:
        config = LlavaConfig.from_dict(dict(document))
        with torch.device("meta"):
            return cls(config)
    except Exception as error:  # a stranger's numbers can fail anywhere in the library
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"transformers cannot make a model of this configuration: {reason}") from error


def hub_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Every tensor that a checkpoint of ``model`` holds: hub name to shape."""
    state = model.state_dict()
    return {key: tuple(state[name].shape) for key, name in folders.hub_names(state).items()}


def build_tower(shape: VisionShape, *, attention: str = "sdpa") -> nn.Module:
    """A CLIP vision tower alone, random weights from torch's own generator, float32."""
    require_transformers()
    from transformers.models.clip.configuration_clip import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionModel

    config = CLIPVisionConfig.from_dict(vision_document(shape))
    config._attn_implementation = attention
    return CLIPVisionModel(config)


@torch.no_grad()
def scale_features(tower: nn.Module, factor: float) -> None:
    """Multiply what a CLIP tower's every layer gives by ``factor``, and change nothing else.

    Layers read the sum of what was written before them through a norm: scaling all that is written does it.
    """
    ends = ("pre_layrnorm", "self_attn.out_proj", "mlp.fc2")
    for name, parameter in tower.named_parameters():
        if name.rpartition(".")[0].endswith(ends):
            parameter.mul_(factor)


def build_decoder(shape: TextShape, *, attention: str = "sdpa") -> Any:
    """A Llama decoder with its head alone, random weights from torch's own generator, float32."""
    require_transformers()
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    config = LlamaConfig.from_dict({**text_document(shape), "use_cache": False})
    config._attn_implementation = attention
    return LlamaForCausalLM(config)


def put_parts(model: nn.Module, *, tower: nn.Module | None = None, decoder: nn.Module | None = None) -> None:
    """Copy the weights of a tower and of a decoder with its head into a Llava model of the same numbers."""
    inner: Any = model.get_submodule("model")
    if tower is not None:
        inner.vision_tower.load_state_dict(tower.state_dict())
    if decoder is not None:
        inner.language_model.load_state_dict(decoder.get_submodule("model").state_dict())
        model.get_submodule("lm_head").load_state_dict(decoder.get_submodule("lm_head").state_dict())


def config_of(model: nn.Module) -> Any:
    """The ``LlavaConfig`` of a stock model; ``nn.Module`` does not know that it has one."""
    return model.config


def disable_cache(model: nn.Module) -> None:
    """Switch the key-value cache off on every nested configuration.

    With it on, rows that share a packed sequence see each other, silently; the outer switch alone is not
    enough. :func:`save_llava` does not carry the switch into the checkpoint.
    """
    for module in model.modules():
        for config in (getattr(module, "config", None), getattr(module, "generation_config", None)):
            if config is not None:
                config.use_cache = False


# The projector of a stock model.


def projector_layout(model: nn.Module) -> ProjectorLayout | None:
    """How the projector of a stock model is kept; None if no layout fits (an unknown activation)."""
    return projectors.layout_of(_projector_of(model), config_of(model).projector_hidden_act)


def to_identity(model: nn.Module) -> None:
    """Turn a folded projector into the identity layout, which can be trained, and freeze its ``linear_2``.

    Raises:
        ModelError: the projector has two layers of its own.
    """
    linear = _single(_projector_of(model), config_of(model).projector_hidden_act)
    set_projector(model, ProjectorLayout.IDENTITY, linear)


def set_projector(model: nn.Module, layout: ProjectorLayout, linear: projectors.Linear) -> None:
    """Put a single linear projector into a stock model, as ``identity`` (``linear_2`` frozen) or ``fold``."""
    two = _as(layout, linear)
    module = _projector(model)
    with torch.no_grad():
        for name, tensor in _named(two).items():
            module.get_parameter(name).copy_(tensor)
    module.act = nn.Identity() if layout is ProjectorLayout.IDENTITY else nn.GELU()
    config_of(model).projector_hidden_act = _act_of(layout)
    module.linear_2.requires_grad_(layout is not ProjectorLayout.IDENTITY)


def linear_projector(model: nn.Module) -> nn.Linear:
    """The one layer of an identity projector that is trained."""
    return _projector(model).linear_1


def _projector(model: nn.Module) -> Any:
    return model.get_submodule("model.multi_modal_projector")


def _projector_of(model: nn.Module) -> projectors.TwoLayer:
    module = _projector(model)
    if not config_of(model).multimodal_projector_bias:
        raise ModelError("this projector has no biases; LLaVA's always has, so no layout describes it")
    return projectors.TwoLayer(
        weight_1=module.linear_1.weight.detach(),
        bias_1=module.linear_1.bias.detach(),
        weight_2=module.linear_2.weight.detach(),
        bias_2=module.linear_2.bias.detach(),
    )


def _named(two: projectors.TwoLayer) -> dict[str, Tensor]:
    return {
        "linear_1.weight": two.weight_1,
        "linear_1.bias": two.bias_1,
        "linear_2.weight": two.weight_2,
        "linear_2.bias": two.bias_2,
    }


def _single(two: projectors.TwoLayer, act: str) -> projectors.Linear:
    linear = projectors.from_identity(two) if act == "linear" else projectors.unfold(two)
    if linear is None:
        raise ModelError(
            "this projector has two layers of its own (mlp); identity and fold hold a single one"
        )
    return linear


def _as(layout: ProjectorLayout, linear: projectors.Linear) -> projectors.TwoLayer:
    if layout is ProjectorLayout.MLP:
        raise ConfigError("a single linear projector goes into the layouts identity and fold, not mlp")
    return projectors.identity(linear) if layout is ProjectorLayout.IDENTITY else projectors.fold(linear)


def _act_of(layout: ProjectorLayout) -> str:
    return "linear" if layout is ProjectorLayout.IDENTITY else "gelu"


# Loading.


def load_llava(
    model: str | Path, *, dtype: torch.dtype = torch.float32, lean: bool = False, attention: str = "sdpa"
) -> nn.Module:
    """A model in evaluation mode from a folder (never the network) or a hub id (see ``folder.resolve``).

    ``lean`` gives a :class:`llavar.models.lean.LeanLlava` without importing transformers if the checkpoint
    is made of a CLIP tower and a Llama decoder, else the stock model as without ``lean``. Both answer
    ``generate(input_ids, pixel_values=, attention_mask=, max_new_tokens=, eos_token_id=, pad_token_id=,
    do_sample=False)`` and have ``dtype`` and ``device``; only the stock one trains. The second layer of an
    identity projector comes frozen.

    Raises:
        NotFoundError, FetchError: there is no such folder or hub id.
        ModelError: incomplete, damaged, or another architecture.
    """
    folder = folders.resolve(model)
    document = folders.read_document(folder, "config.json")
    _check_architecture(folder, document)
    if lean and is_covered(document):
        return lean_model.load(folder, dtype=dtype)
    stock = _load_stock(folder, dtype, attention)
    if config_of(stock).projector_hidden_act == "linear" and config_of(stock).multimodal_projector_bias:
        frozen = projectors.from_identity(_projector_of(stock)) is not None
        _projector(stock).linear_2.requires_grad_(not frozen)
    return stock


def _check_architecture(folder: Path, document: Mapping[str, object]) -> None:
    named = document.get("architectures") or [None]
    name = named[0] if isinstance(named, list) else named
    if name in ORIGINAL_CLASSES:
        raise ModelError(
            f"{folder} is a checkpoint of the original LLaVA ({name}); convert it first: llavar convert"
        )
    if document.get("model_type") != "llava" or name not in (None, ARCHITECTURE):
        raise ModelError(
            f"{folder} holds a {name or document.get('model_type')!s:.80}; a {ARCHITECTURE} was expected"
        )


def is_covered(document: Mapping[str, object]) -> bool:
    """Whether :mod:`llavar.models.lean` computes what this ``config.json`` describes."""
    try:
        LlavaShape.from_config(document)
    except (ModelError, ConfigError):
        return False
    return True


def _load_stock(folder: Path, dtype: torch.dtype, attention: str) -> Any:
    cls = llava_class()
    from transformers.models.llava.configuration_llava import LlavaConfig

    try:
        config = LlavaConfig.from_pretrained(str(folder), local_files_only=True)
        with torch.device("meta"):
            skeleton = cls(config)
    except Exception as error:  # a stranger's numbers can fail anywhere in the library
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder / 'config.json'} does not describe a model: {reason}") from error
    state = skeleton.state_dict()
    expected = {key: tuple(state[name].shape) for key, name in folders.hub_names(state).items()}
    weights = folders.open_weights(folder)
    if config.tie_word_embeddings and _HEAD not in weights:
        expected.pop(_HEAD, None)
    folders.check_weights(folder, weights, expected)
    tensors = folders.read_tensors(weights, dtype)
    model, info = cls.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=dtype,
        attn_implementation=training.implementation(attention),
        output_loading_info=True,
    )
    lost = sorted({*info["missing_keys"], *info["unexpected_keys"]})
    if lost:
        raise ModelError(f"transformers did not take {lost[0]!r} of {folder} over; upgrade transformers")
    return _with_generation_config(model, folder)


def load_stock(folder: Path) -> Any:
    """A model by transformers' own loader, as users of a stock engine get it, in float32.

    Raises:
        ModelError: transformers finds a tensor missing, or one too many.
    """
    model, info = llava_class().from_pretrained(
        str(folder), dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    lost = sorted({*info["missing_keys"], *info["unexpected_keys"]})
    if lost:
        raise ModelError(f"transformers does not find {lost[0]!r} in {folder}, or does not know it")
    return model.eval()


def stock_tokenizer(folder: Path) -> Any:
    """A tokenizer by transformers' own loader."""
    require_transformers()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def _with_generation_config(model: Any, folder: Path) -> Any:
    from transformers import GenerationConfig

    if (folder / "generation_config.json").is_file():
        folders.read_document(folder, "generation_config.json")
        model.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    return model


def image_tokens(model: nn.Module) -> int:
    """Placeholder tokens that one input of the tower takes in a stock model."""
    config = config_of(model)
    vision, full = config.vision_config, config.vision_feature_select_strategy == "full"
    return (vision.image_size // vision.patch_size) ** 2 + (full and has_class_token(vision.model_type))


# Saving.


def save_llava(
    model: nn.Module,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    layout: ProjectorLayout | None = None,
    transform: Transform = Transform.PAD,
    norm: Norm | None = None,
    tiles: Tiles = WHOLE,
    image_token: str = IMAGE_PATCH,
    max_shard_bytes: int | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a stock model as a folder that every stock engine loads: weights, configuration, processor.

    Written aside and renamed. ``dtype`` and ``layout`` convert on the way (None: as they are);
    ``norm`` is that of the pictures (None: as CLIP and SigLIP have it), ``tiles`` how they are cut;
    ``max_shard_bytes`` bounds each file of weights; ``state`` stands in for ``model.state_dict()`` where
    that is spread over processes. The tokenizer is written by its own ``save`` afterwards.

    Raises:
        ModelError: the layout does not fit the projector, a tensor is larger than a file may be, the
            tower is neither CLIP nor SigLIP, or ``folder`` is something else.
    """
    norm_of(config_of(model).vision_config.model_type)
    tensors = _hub_tensors(model, state, layout)
    if dtype is not None:
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    act = _act_of(layout) if layout else config_of(model).projector_hidden_act
    kept = tensors[_EMBEDDING].dtype
    with folders.replacing(folder) as aside:
        folders.write_weights(tensors, aside, max_shard_bytes)
        write_documents(
            model,
            aside,
            act=act,
            dtype=kept,
            transform=transform,
            norm=norm,
            tiles=tiles,
            image_token=image_token,
        )


def write_documents(
    model: nn.Module,
    folder: Path,
    *,
    act: str,
    dtype: torch.dtype,
    transform: Transform,
    norm: Norm | None = None,
    tiles: Tiles = WHOLE,
    image_token: str = IMAGE_PATCH,
) -> None:
    """Write what stands beside the weights of ``model``: configuration, generation, pictures, processor.

    ``act`` is the projector's activation on disk, ``dtype`` that of the weights. The parameters are not
    looked at, so a model of :func:`skeleton` will do.
    """
    folders.write_document(folder, "config.json", _config_document(model, act, dtype))
    folders.write_document(folder, "generation_config.json", _generation_document(model))
    vision, strategy = config_of(model).vision_config, config_of(model).vision_feature_select_strategy
    norm = norm or norm_of(vision.model_type)
    pictures = preprocessor_document(vision.image_size, transform, norm, tiles)
    folders.write_document(folder, "preprocessor_config.json", pictures)
    processor = processor_document(vision.model_type, vision.patch_size, strategy, image_token)
    folders.write_document(folder, "processor_config.json", processor)


def _hub_tensors(
    model: nn.Module, state: Mapping[str, Tensor] | None, layout: ProjectorLayout | None
) -> dict[str, Tensor]:
    source = model.state_dict() if state is None else state
    tensors = {key: source[name].detach().cpu() for key, name in folders.hub_names(source).items()}
    if config_of(model).tie_word_embeddings:
        tensors.pop(_HEAD, None)
    if layout is not None:
        two = projectors.TwoLayer(
            weight_1=tensors[f"{_PREFIX}linear_1.weight"],
            bias_1=tensors[f"{_PREFIX}linear_1.bias"],
            weight_2=tensors[f"{_PREFIX}linear_2.weight"],
            bias_2=tensors[f"{_PREFIX}linear_2.bias"],
        )
        if projectors.layout_of(two, config_of(model).projector_hidden_act) is not layout:
            changed = _as(layout, _single(two, config_of(model).projector_hidden_act))
            tensors |= {f"{_PREFIX}{name}": tensor for name, tensor in _named(changed).items()}
    return {name: tensors[name] for name in sorted(tensors)}


def _config_document(model: nn.Module, act: str, dtype: torch.dtype) -> dict[str, object]:
    document = json.loads(config_of(model).to_json_string())
    for section in (document, document["text_config"], document["vision_config"]):
        section.pop("use_cache", None)  # a switch of training, not of the model
        section.pop("dtype", None)
    text = document["text_config"]
    rope = text.get("rope_parameters") or {}
    if rope.get("rope_type") == "default":
        text["rope_theta"] = rope["rope_theta"]  # read by engines that know nothing of rope_parameters
    return document | {
        "architectures": [ARCHITECTURE],
        "projector_hidden_act": act,
        "dtype": str(dtype).removeprefix("torch."),
    }


def _generation_document(model: nn.Module) -> dict[str, object]:
    text = config_of(model).text_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(text, name, None) for name in names}
    return {name: value for name, value in ids.items() if value is not None}
