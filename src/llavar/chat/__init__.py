"""Conversations as text, with the part that is learned marked while it is written.

A template is data (:class:`Template`); adding one touches :mod:`llavar.chat.templates` alone. The
beginning-of-sequence token is left to the tokenizer, so no text here holds one, except where a tokenizer's
own chat template writes it (the encoder drops the second).
"""

from llavar.chat.pictures import (
    IMAGE_END,
    IMAGE_PATCH,
    IMAGE_START,
    escape_special,
    expand_images,
    with_image,
)
from llavar.chat.templates import (
    LLAVA_SYSTEM,
    Style,
    Template,
    for_checkpoint_name,
    for_training,
    get,
    own,
    templates,
)
from llavar.chat.text import clean_answer, jinja_source, parse, prompt, render, stop_strings

__all__ = [
    "IMAGE_END",
    "IMAGE_PATCH",
    "IMAGE_START",
    "LLAVA_SYSTEM",
    "Style",
    "Template",
    "clean_answer",
    "escape_special",
    "expand_images",
    "for_checkpoint_name",
    "for_training",
    "get",
    "jinja_source",
    "own",
    "parse",
    "prompt",
    "render",
    "stop_strings",
    "templates",
    "with_image",
]
