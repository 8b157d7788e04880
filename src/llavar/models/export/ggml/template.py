"""A chat template for llama.cpp, which hands over pictures as marks within a string instead of as parts.

Its server joins a message's parts into one string, ``question<__media_XYZ__>`` with a name of its own, and
puts the picture's embeddings in the mark's place. A template must therefore write the tokens around the mark.
"""

from __future__ import annotations

import json
from typing import Any

from llavar import chat
from llavar.models.tokenizer import TextTokenizer

MARK = "<__media"
"""How llama.cpp's marks begin; they end in ``>``."""

_HEAD = """\
{%- set marked = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- if message['content'] is string and '<__media' in message['content'] -%}
{%- set said = namespace(text='') -%}
{%- for piece in message['content'].split('<__media') -%}
{%- if loop.first -%}
{%- set said.text = piece<STRIP_END> -%}
{%- else -%}
{%- set mark = piece.split('>')[0] -%}
{%- set rest = piece[(mark | length) + 1:]<STRIP> -%}
{%- set said.text = said.text + (<GAP> if said.text else '') + '<START><__media' + mark + '><END>' -%}
{%- set said.text = said.text + ((<GAP> + rest) if rest else '') -%}
{%- endif -%}
{%- endfor -%}
{%- set marked.messages = marked.messages + [{'role': message['role'], 'content': said.text}] -%}
{%- else -%}
{%- set marked.messages = marked.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = marked.messages %}
"""
"""Ends in a block and its line end, which chat templates drop, so that what follows begins a line."""

_WITHOUT_BLANKS = """\
{{%- set written -%}}
{source}
{{%- endset -%}}
{{{{- written{replaced} -}}}}"""


def strips(tokenizer: TextTokenizer, image_token: str) -> bool:
    """Whether the image token takes the white space around it away, as LLaVA's does."""
    document: Any = json.loads(tokenizer.backend.to_str())
    return any(t["content"] == image_token and t["lstrip"] for t in document["added_tokens"])


def for_marks(tokenizer: TextTokenizer, image_token: str) -> str:
    """The tokenizer's chat template, made fit for marks; white space that its tokens strip is not written."""
    strip = strips(tokenizer, image_token)
    start, end = (chat.IMAGE_START, chat.IMAGE_END) if tokenizer.has_start_end else ("", "")
    head = _HEAD.replace("<STRIP_END>", ".rstrip()" if strip else "").replace(
        "<STRIP>", ".strip()" if strip else ""
    )
    head = head.replace("<GAP>", "''" if strip else r"'\n'").replace("<START>", start).replace("<END>", end)
    if not strip:
        return head + tokenizer.chat_template
    first, last = start or MARK, end or "__>"
    replaced = "".join(
        f".replace({old!r}, {new!r})"
        for blank in (" ", "\n", " ")
        for old, new in ((blank + first, first), (last + blank, last))
    )
    return head + _WITHOUT_BLANKS.format(source=tokenizer.chat_template, replaced=replaced)
