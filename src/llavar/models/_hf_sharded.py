# pyright: basic
"""A stock Llava whose decoder is divided among processes: loaded part by part, and written tensor by tensor.

Beside :mod:`llavar.models._hf`, of which this is a part. The model is built without numbers; tower and
projector are then read whole, and of each tensor of the decoder a process reads its own rows from the
safetensors. Neither loading nor writing holds more of the decoder in a process than its part and one tensor.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llavar.errors import ConfigError, ModelError
from llavar.images import WHOLE, Norm, Tiles, Transform
from llavar.models import _hf as hf
from llavar.models import _hf_training as training
from llavar.models import folder as folders
from llavar.models import projector as projectors
from llavar.models.processor import norm_of
from llavar.models.shape import ProjectorLayout
from llavar.models.spread import is_spread, made_like, rows_of
from llavar.models.stored import open_tensors
from llavar.models.stream import Planned, write

_PROJECTOR = "model.multi_modal_projector."


# Dividing.


def units(model: nn.Module) -> list[list[nn.Module]]:
    """The modules whose weights are gathered at once: each layer of the decoder, embedding, norm and head.

    An embedding that is the head too is one unit with it.

    Raises:
        ConfigError: the decoder has no list of layers, or weights beside its modules.
    """
    decoder: Any = model.get_submodule("model.language_model")
    head = model.get_submodule("lm_head")
    layers = [child for child in decoder.children() if isinstance(child, nn.ModuleList)]
    others = [child for child in decoder.children() if child not in layers and _has_weights(child)]
    if not layers or next(decoder.parameters(recurse=False), None) is not None:
        raise ConfigError(
            f"the decoder ({type(decoder).__name__}) cannot be divided layer by layer; take --shard none"
        )
    found = [[layer] for each in layers for layer in each] + [[other] for other in others]
    embedding = decoder.get_input_embeddings()
    if head.weight is not embedding.weight:
        return [*found, [head]]
    return [[*unit, head] if unit == [embedding] else unit for unit in found]


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def spread(model: nn.Module, mesh: Any, *, computed: torch.dtype | None = None) -> None:
    """Divide the decoder of ``model`` among the processes of ``mesh``, its weights by their first dimension.

    Layers are gathered in ``computed`` (None: as they are held) when they are needed, forwards and backwards,
    and let go of afterwards; gradients are summed over processes in fp32, and not divided. The embedding's
    output wants a gradient even if nothing below it is trained, so that all processes go backwards alike.
    """
    fsdp: Any = importlib.import_module("torch.distributed.fsdp")
    policy = fsdp.MixedPrecisionPolicy(param_dtype=computed, reduce_dtype=torch.float32)
    for unit in units(model):
        made = fsdp.fully_shard(unit, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
        for module in made:
            _sum_up(module)
    decoder: Any = model.get_submodule("model.language_model")
    decoder.get_input_embeddings().register_forward_hook(_differentiable)


class Root(nn.Module):
    """Around a divided model, so that torch knows where a pass begins and ends; computes what it is given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def root_of(model: nn.Module, mesh: Any) -> nn.Module:
    """What a pass through a divided ``model`` is called through; tower and projector stay whole."""
    fsdp: Any = importlib.import_module("torch.distributed.fsdp")
    root = Root(model)
    whole = {parameter for parameter in model.parameters() if not is_spread(parameter)}
    policy = fsdp.MixedPrecisionPolicy(cast_forward_inputs=False)
    fsdp.fully_shard(root, mesh=mesh, reshard_after_forward=True, mp_policy=policy, ignored_params=whole)
    return root


def _sum_up(module: Any) -> None:
    """A loss is divided by all tokens of a step beforehand; gloo knows sums alone."""
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)


def _differentiable(_module: nn.Module, _given: Any, output: Tensor) -> Tensor:
    return output if output.requires_grad or not torch.is_grad_enabled() else output.requires_grad_()


# Loading.


def load(
    folder: Path,
    divide: Callable[[nn.Module], None],
    *,
    attention: str,
    dtype: torch.dtype,
    device: torch.device,
) -> nn.Module:
    """The model in ``folder`` in evaluation mode, divided by ``divide`` while it is still without numbers.

    The decoder is held in ``dtype`` on ``device``, tower and projector in fp32 on the CPU.

    Raises:
        ModelError: incomplete, damaged, or another architecture.
        ConfigError: the decoder cannot be divided.
    """
    document = folders.read_document(folder, "config.json")
    hf._check_architecture(folder, document)
    model = _without_numbers(folder, document, attention)
    state = model.state_dict()
    names = folders.hub_names(state)
    weights = folders.open_weights(folder)
    expected = {key: tuple(state[name].shape) for key, name in names.items()}
    if model.config.tie_word_embeddings and hf._HEAD not in weights:
        expected.pop(hf._HEAD, None)
    folders.check_weights(folder, weights, expected)
    for module in (model.get_submodule("model.language_model"), model.lm_head):
        module.to(dtype)
    divide(model)
    _fill(model, {names[key]: stored for key, stored in weights.items()}, device)
    _freeze_identity(model)
    return hf._with_generation_config(model, folder).eval()


def _without_numbers(folder: Path, document: Mapping[str, object], attention: str) -> Any:
    cls = hf.llava_class()
    from transformers.models.llava.configuration_llava import LlavaConfig

    try:
        config = LlavaConfig.from_dict(dict(document))
        config._attn_implementation = training.implementation(attention)
        with _unfilled():
            return cls(config)
    except ConfigError:
        raise
    except Exception as error:  # a stranger's numbers can fail anywhere in the library
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder / 'config.json'} does not describe a model: {reason}") from error


def _freeze_identity(model: nn.Module) -> None:
    """As :func:`llavar.models._hf.load_llava` has it: an identity is no weight."""
    config = hf.config_of(model)
    if config.projector_hidden_act == "linear" and config.multimodal_projector_bias:
        frozen = projectors.from_identity(hf._projector_of(model)) is not None
        hf._projector(model).linear_2.requires_grad_(not frozen)


@contextmanager
def _unfilled() -> Generator[None]:
    """Parameters that are made in the block have no numbers; buffers (of rotary positions) have theirs."""
    register = nn.Module.register_parameter

    def without_numbers(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:  # one that is shared stays one
            param = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = without_numbers
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def _fill(model: nn.Module, stored: Mapping[str, folders.Stored], device: torch.device) -> None:
    """Read what each parameter holds here: one that is whole all of its tensor, a divided one its rows."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    shared = {id(parameters[name]): stored[name] for name in parameters if name in stored}
    made: dict[int, nn.Parameter] = {}
    with contextlib.ExitStack() as stack:
        files = {each.path: stack.enter_context(folders._open(each.path)) for each in stored.values()}

        def read(source: folders.Stored, rows: slice | None) -> Tensor:
            return _rows(files[source.path], source, rows)

        for parameter in parameters.values():
            if id(parameter) not in made:
                made[id(parameter)] = _read(parameter, shared[id(parameter)], read, device)
        for name, buffer in model.named_buffers():
            if name in stored:
                buffer.copy_(read(stored[name], None))
    filled = {name: made[id(parameter)] for name, parameter in parameters.items()}
    model.load_state_dict(filled, assign=True, strict=False)


def _read(
    parameter: nn.Parameter,
    source: folders.Stored,
    read: Callable[[folders.Stored, slice | None], Tensor],
    device: torch.device,
) -> nn.Parameter:
    """What this process holds of ``parameter``, from where it is stored."""
    divided = is_spread(parameter)
    part = read(source, rows_of(parameter) if divided else None)
    own = part.to(device=device if divided else "cpu", dtype=parameter.dtype, copy=True)
    return nn.Parameter(made_like(parameter, own), requires_grad=parameter.requires_grad)


def _rows(file: Any, source: folders.Stored, rows: slice | None) -> Tensor:
    """``rows`` of a tensor (None: all of it), and no others are read."""
    if rows is None:
        return file.get_tensor(source.name)
    if rows.start == rows.stop:
        return torch.empty(0, *source.shape[1:])
    return file.get_slice(source.name)[rows]


# Writing.


def save(
    model: nn.Module,
    folder: Path,
    *,
    ask: Callable[[str], Tensor],
    start: Path,
    trained: Collection[str],
    dtype: torch.dtype,
    layout: ProjectorLayout | None,
    transform: Transform,
    norm: Norm | None = None,
    tiles: Tiles = WHOLE,
) -> None:
    """Write a divided model as :func:`llavar.models._hf.save_llava` writes one, tensor by tensor.

    ``ask`` gives all of a tensor by its name in the model; ``trained`` are the names of those that differ
    from what ``start`` holds, from where the others are taken.

    Raises:
        ModelError: there is no room, or a file cannot be written.
    """
    norm_of(hf.config_of(model).vision_config.model_type)
    act = hf._act_of(layout) if layout else hf.config_of(model).projector_hidden_act
    with folders.replacing(folder) as aside:
        write(aside, _planned(model, ask, start, set(trained), dtype, layout), checksums=False)
        hf.write_documents(model, aside, act=act, dtype=dtype, transform=transform, norm=norm, tiles=tiles)


def _planned(
    model: nn.Module,
    ask: Callable[[str], Tensor],
    start: Path,
    trained: set[str],
    dtype: torch.dtype,
    layout: ProjectorLayout | None,
) -> Iterator[Planned]:
    """Every tensor of the folder, in order; none is there before its turn."""
    state = model.state_dict()
    before = folders.hub_names(found := open_tensors(start))
    small = {name: tensor for name, tensor in state.items() if name.startswith(_PROJECTOR)}
    projector = hf._hub_tensors(model, small, layout)
    for key, name in sorted(folders.hub_names(state).items()):
        if key == hf._HEAD and hf.config_of(model).tie_word_embeddings:
            continue
        shape = tuple(state[name].shape)
        make: Callable[[], Tensor] = partial(ask, name)
        if key in projector:
            make = partial(projector.__getitem__, key)
        elif name not in trained and key in before and found[before[key]].shape == shape:
            make = found[before[key]].load
        floating = state[name].is_floating_point()
        kind = dtype if floating else state[name].dtype
        yield Planned(name=key, shape=shape, dtype=kind, make=partial(_cast, make, kind))


def _cast(make: Callable[[], Tensor], dtype: torch.dtype) -> Tensor:
    return make().detach().to("cpu", dtype)
