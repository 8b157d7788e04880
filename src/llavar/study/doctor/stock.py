"""A Llava in the stock layout: whether its files agree with one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from llavar import chat
from llavar.errors import LlavarError
from llavar.generate.local import setup_of
from llavar.images import WHOLE, Tiles
from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models.processor import has_class_token
from llavar.study.doctor.findings import Finding, from_error, ok, problem
from llavar.study.doctor.tokenizer import Case, self_test, tokenizer_of


def stock_findings(case: Case) -> Iterator[Finding]:
    yield from _agrees(case)
    yield from _counts(case)
    yield from _processor(case)
    tokenizer, found = tokenizer_of(case)
    yield from found
    if tokenizer is None:
        return
    token = case.config.get("image_token_index", case.config.get("image_token_id"))
    own = tokenizer.lookup(chat.IMAGE_PATCH)
    if own is not None and token != own:
        yield problem(
            "image token",
            f"config.json has image_token_index {token!r:.40}, and {chat.IMAGE_PATCH} is {own}",
            f"write {own} into config.json",
        )
    try:
        setup = setup_of(case.folder, tokenizer)
        yield ok(
            "use",
            f"conversation {setup.template.name}, image transform {setup.transform}, "
            f"{setup.image_tokens * setup.tiles.views} tokens a picture{_tiled(setup.tiles)}, at most "
            f"{setup.max_positions} in all",
        )
    except LlavarError as error:
        yield from_error("use", error)
    if own is not None:
        yield from self_test(case, tokenizer)


def _tiled(tiles: Tiles) -> str:
    return "" if tiles == WHOLE else f" (an overview and {tiles} tiles)"


def _agrees(case: Case) -> Iterator[Finding]:
    """Whether the tensors are those that ``config.json`` describes."""
    if not case.tensors:
        return
    try:
        skeleton = hf.skeleton_of(case.config)
        expected = hf.hub_shapes(skeleton)
        weights = folders.open_weights(case.folder)
        head = "language_model.lm_head.weight"
        if head not in weights and hf.config_of(skeleton).tie_word_embeddings:
            expected.pop(head, None)
        folders.check_weights(case.folder, weights, expected)
        yield ok("shapes", "all tensors are there and have the shapes that config.json describes")
    except LlavarError as error:
        yield from_error("shapes", error)


def _counts(case: Case) -> Iterator[Finding]:
    try:
        config = hf.config_of(hf.skeleton_of(case.config))
    except LlavarError:
        return  # said already
    vision = config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    full = config.vision_feature_select_strategy == "full"
    counted = patches + (full and has_class_token(vision.model_type))
    if case.config.get("image_seq_length", counted) != counted:
        yield problem(
            "image tokens",
            f"config.json has image_seq_length {case.config['image_seq_length']!r:.40}, and its tower "
            f"gives {counted}",
            f"write {counted} into config.json",
        )
    if not full and not has_class_token(vision.model_type):
        yield problem(
            "image tokens",
            "vision_feature_select_strategy 'default' drops the first patch of a tower without a class token",
            "write 'full' into config.json and processor_config.json",
        )
    layers, layer = vision.num_hidden_layers, config.vision_feature_layer
    if isinstance(layer, int) and not -layers - 1 <= layer <= layers:
        yield problem(
            "vision_feature_layer",
            f"{layer} is no hidden state of a tower of {layers} layers",
            "write -2, which LLaVA takes, into config.json",
        )


def _processor(case: Case) -> Iterator[Finding]:
    """What stock engines count the tokens of a picture by; the classic error is 575 against 576."""
    missing = [
        name
        for name in ("preprocessor_config.json", "processor_config.json")
        if not (case.folder / name).is_file()
    ]
    if missing:
        yield problem(
            "processor",
            f"{' and '.join(missing)} is missing, so engines do not know how pictures are taken",
            "convert the checkpoint again, or copy the file from where it came from",
        )
    if "processor_config.json" in missing:
        return
    try:
        told = folders.read_document(case.folder, "processor_config.json")
    except LlavarError as error:
        yield from_error("processor", error)
        return
    vision = case.config.get("vision_config")
    seen: Mapping[str, object] = cast("Mapping[str, object]", vision) if isinstance(vision, Mapping) else {}
    wanted: dict[str, object] = {
        "patch_size": seen.get("patch_size"),
        "vision_feature_select_strategy": case.config.get("vision_feature_select_strategy", "default"),
        "num_additional_image_tokens": int(has_class_token(str(seen.get("model_type")))),
    }
    for name, value in wanted.items():
        if value is not None and told.get(name, value) != value:
            yield problem(
                "processor",
                f"processor_config.json has {name} {told[name]!r:.40}, and by config.json it is {value!r}",
                f"write {value!r} into processor_config.json",
            )
