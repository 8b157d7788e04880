"""How a model folder takes pictures: what stock engines and this package read of it, and write.

Two files say so: ``preprocessor_config.json`` (pixels) and ``processor_config.json`` (tokens). No torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from llavar.errors import ConfigError, ModelError
from llavar.images import CLIP, SIGLIP, WHOLE, Norm, Tiles, Transform
from llavar.models import folder as folders

TRANSFORM_KEY = "llavar_transform"
"""Where ``preprocessor_config.json`` records how pictures were made square; stock readers skip it."""


TILES_KEY = "llavar_tiles"
"""Where it records into how many tiles a picture is cut; stock readers see one picture, and skip it too."""


def read_tiles(folder: Path) -> Tiles:
    """Into how many tiles a model folder wants pictures cut; one whole picture where it says nothing.

    Raises:
        ModelError: ``preprocessor_config.json`` is unusable, or names tiles that cannot be.
    """
    value = folders.read_document(folder, "preprocessor_config.json").get(TILES_KEY)
    if value is None:
        return WHOLE
    try:
        return Tiles.parse(value if isinstance(value, str) else repr(value))
    except ConfigError as error:
        raise ModelError(f"{folder / 'preprocessor_config.json'} has {TILES_KEY}: {error}") from error


def read_transform(folder: Path) -> Transform:
    """How a model folder wants pictures made square: as recorded here, else as stock readers do it.

    Raises:
        ModelError: ``preprocessor_config.json`` is unusable, or names an unknown transform.
    """
    document = folders.read_document(folder, "preprocessor_config.json")
    stock = Transform.PAD if document.get("do_pad") else Transform.CROP
    value = document.get(TRANSFORM_KEY, stock.value)
    try:
        return Transform(value)
    except ValueError as error:
        known = ", ".join(Transform)
        raise ModelError(f"{folder} wants the image transform {value!r:.60}; known are {known}") from error


def read_norm(folder: Path) -> Norm:
    """Mean and deviation that the tower of a model folder takes pictures with; CLIP's where it says nothing.

    Raises:
        ModelError: ``preprocessor_config.json`` is unusable.
    """
    document = folders.read_document(folder, "preprocessor_config.json")
    where = folder / "preprocessor_config.json"
    mean = _three(where, "image_mean", document.get("image_mean"), CLIP.mean)
    std = _three(where, "image_std", document.get("image_std"), CLIP.std)
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise ModelError(f"{where} has image_mean {mean} and image_std {std}; they must lie between 0 and 1")
    return Norm(mean=mean, std=std)


def _three(
    where: Path, key: str, value: object, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    if value is None:
        return default
    given = cast("list[object]", value) if isinstance(value, list) else []
    numbers = [float(x) for x in given if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(numbers) != 3 or len(given) != 3:
        raise ModelError(f"{where} has {key} = {value!r:.60}; three numbers were expected")
    red, green, blue = numbers
    return red, green, blue


def norm_of(vision_type: str) -> Norm:
    """Mean and deviation that towers of a ``model_type`` were trained with.

    Raises:
        ModelError: neither CLIP nor SigLIP.
    """
    known = {"clip_vision_model": CLIP, "siglip_vision_model": SIGLIP}
    if vision_type not in known:
        raise ModelError(
            f"a tower of type {vision_type!r:.60} cannot be saved; its image processor is not known here, "
            f"only those of {', '.join(known)}"
        )
    return known[vision_type]


def has_class_token(vision_type: str) -> bool:
    """Whether the towers of a ``model_type`` put a class token before the patches; SigLIP's do not."""
    return vision_type != "siglip_vision_model"


def preprocessor_document(
    size: int, transform: Transform, norm: Norm, tiles: Tiles = WHOLE
) -> dict[str, object]:
    """``preprocessor_config.json``: CLIP's processor for ``size`` pixels, with the tower's ``norm``.

    To pad, the stock class that pads to a square before it resizes. It makes one view of ``tiles`` of what is
    one view already, so that stock engines are given the views as so many pictures.
    """
    padded = transform is Transform.PAD
    return {
        "image_processor_type": "LlavaImageProcessor" if padded else "CLIPImageProcessor",
        "do_convert_rgb": True,
        **({"do_pad": True} if padded else {}),
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(norm.mean),
        "image_std": list(norm.std),
        TRANSFORM_KEY: transform.value,
        **({} if tiles == WHOLE else {TILES_KEY: str(tiles)}),
    }


def processor_document(
    vision_type: str, patch_size: int, strategy: str, image_token: str
) -> dict[str, object]:
    """``processor_config.json``, by which stock engines count the tokens of a picture."""
    return {
        "processor_class": "LlavaProcessor",
        "image_token": image_token,
        "patch_size": patch_size,
        "num_additional_image_tokens": int(has_class_token(vision_type)),
        "vision_feature_select_strategy": strategy,
    }
