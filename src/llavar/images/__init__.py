"""Open pictures safely, and turn them into the arrays that a vision tower takes.

A picture file is hostile input: :func:`open_image` answers with an RGB picture or with one sentence, for
every file (``opening``). The three transforms are those of the original (``square``), and a picture may be
shown in tiles (``tiles``). No torch here: numpy arrays go out.
"""

from llavar.images.opening import FORMATS, Limits, Source, image_size, open_image, to_rgb
from llavar.images.square import (
    CLIP,
    CLIP_MEAN,
    CLIP_STD,
    PAD_COLOUR,
    SIGLIP,
    Norm,
    Transform,
    data_uri,
    normalize,
    pixels,
    view,
)
from llavar.images.tiles import MOST_TILES, WHOLE, Tiles, montage, view_pixels, views

__all__ = [
    "CLIP",
    "CLIP_MEAN",
    "CLIP_STD",
    "FORMATS",
    "MOST_TILES",
    "PAD_COLOUR",
    "SIGLIP",
    "WHOLE",
    "Limits",
    "Norm",
    "Source",
    "Tiles",
    "Transform",
    "data_uri",
    "image_size",
    "montage",
    "normalize",
    "open_image",
    "pixels",
    "to_rgb",
    "view",
    "view_pixels",
    "views",
]
