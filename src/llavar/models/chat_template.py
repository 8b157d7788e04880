"""Chat templates of decoders, made fit for pictures: what ``llavar convert build`` does to them.

Decoders bring a template in jinja that takes contents as strings. Stock engines hand over OpenAI's lists of
parts where there is a picture, so the template is preceded by a few lines that turn each list into a string,
the picture's placeholder in its place. The author's own lines stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llavar import chat
from llavar.chat import foreign
from llavar.errors import ConfigError, LlavarError
from llavar.models.tokenizer import TextTokenizer
from llavar.records import Conversation

_QUESTIONS = ("first probe question", "second probe question")
_ANSWERS = ("first probe answer", "second probe answer")
_SYSTEM = "probe of the system"

_LISTS_TO_STRINGS = """\
{%- set parted = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- if message['content'] is string or not message['content'] -%}
{%- set parted.messages = parted.messages + [message] -%}
{%- else -%}
{%- set said = namespace(text='') -%}
{%- for item in message['content'] -%}
{%- set piece = item['text'] if item['type'] == 'text' else <PICTURE> -%}
{%- set said.text = said.text + piece + ('' if loop.last else '\\n') -%}
{%- endfor -%}
{%- set parted.messages = parted.messages + [dict(message, content=said.text)] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = parted.messages %}
"""
"""Ends in a block and its line end, which chat templates drop, so that what follows begins a line."""


_WITHOUT_TODAY = "{%- set strftime_now = no_clock %}\n"
"""Engines define ``strftime_now`` for templates to ask for; what is set to an undefined name is undefined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """A chat template for a folder with pictures, and the token that ends its answers."""

    source: str
    end: str
    notes: tuple[str, ...] = ()


def adapt(tokenizer: TextTokenizer, *, start_end: bool) -> Adapted:
    """The tokenizer's own chat template, extended for pictures.

    A template that writes earlier answers differently from the last one (Qwen 3 takes their empty thoughts
    out) cannot be learned from: a plain one with the same marks takes its place.

    Raises:
        ConfigError: there is no template, it takes only lists of parts, or answers end in no token.
    """
    source = tokenizer.chat_template
    notes: tuple[str, ...] = ()
    if not source:
        raise ConfigError(
            "the decoder's tokenizer carries no chat template; take the chat (instruct) version of it, or "
            "name a conversation with --conversation"
        )
    end = answer_end(tokenizer)
    template = chat.own(source, bos=tokenizer.bos or "", eos=end)
    if _rewrites(template):
        source = _plain(template)
        notes = (
            "its chat template writes earlier answers differently from the last one, so a plain one with "
            "the same marks takes its place",
        )
    elif "strftime_now" in source:
        source = _WITHOUT_TODAY + source
        notes = (
            "its chat template writes the day's date; here it writes the date that it has for engines "
            "without a clock, so that a model is asked as it was trained",
        )
    return Adapted(source=with_pictures(source, start_end=start_end), end=end, notes=notes)


def with_pictures(source: str, *, start_end: bool) -> str:
    """``source`` for contents as strings or as lists of parts; each picture is one ``<im_patch>``.

    Parts stand on lines of their own. What other templates write for strings is not changed.
    """
    picture = chat.IMAGE_START + chat.IMAGE_PATCH + chat.IMAGE_END if start_end else chat.IMAGE_PATCH
    return _LISTS_TO_STRINGS.replace("<PICTURE>", f"'{picture}'") + source


def answer_end(tokenizer: TextTokenizer) -> str:
    """The token that the tokenizer's chat template writes after an answer.

    It need not be the one that the tokenizer calls its end: base models of Qwen name ``<|endoftext|>``.

    Raises:
        ConfigError: there is none, or the template refuses a question and its answer.
    """
    template = chat.own(tokenizer.chat_template, bos=tokenizer.bos or "", eos=tokenizer.eos or "")
    written = _written(template, _QUESTIONS[0], _ANSWERS[0])
    after = written.rpartition(_ANSWERS[0])[2].lstrip() if _ANSWERS[0] in written else ""
    added = [token.content for token in tokenizer.backend.get_added_tokens_decoder().values()]
    named = [tokenizer.eos or "", *sorted(added, key=len, reverse=True)]
    end = next((token for token in named if token and after.startswith(token)), "")
    if not end:
        raise ConfigError(
            f"the decoder's chat template goes on with {after[:40]!r} after an answer, which is no token of "
            "its own, so a model would not learn to stop; name a conversation with --conversation"
        )
    return end


def _written(template: chat.Template, *texts: str) -> str:
    """A whole conversation."""
    try:
        return foreign.text(Conversation.of(*texts).turns, template, generate=False)
    except LlavarError as error:
        raise ConfigError(
            f"the decoder's chat template cannot be used ({error}); name a conversation with --conversation"
        ) from error


def _rewrites(template: chat.Template) -> bool:
    pairs = zip(_QUESTIONS, _ANSWERS, strict=True)
    texts = [text for pair in pairs for text in pair]
    try:
        chat.render(Conversation.of(*texts), template)
    except LlavarError:
        return True
    return False


def _plain(template: chat.Template) -> str:
    """A template that writes what ``template`` writes before a second question, for any number of turns.

    Its marks are read off a conversation of known texts: what stands before the first question, between
    question and answer, between answer and question, and after the last question.
    """
    asked = Conversation.of(_QUESTIONS[0], _ANSWERS[0], _QUESTIONS[1])
    written = chat.prompt(asked, template)
    head, first, rest = written.partition(_QUESTIONS[0])
    to_answer, second, rest = rest.partition(_ANSWERS[0])
    to_question, third, generate = rest.partition(_QUESTIONS[1])
    if not (first and second and third and to_question.startswith(template.answer_end)):
        raise ConfigError(
            "the decoder's chat template changes the texts of its turns, so its marks cannot be told apart; "
            "name a conversation with --conversation"
        )
    close = template.answer_end
    user = to_question.removeprefix(close).lstrip("\n")
    gap = to_question[len(close) : len(to_question) - len(user)]
    system = _system_head(template, user)
    return _PLAIN.format(
        system=_quote(system[0]),
        system_end=_quote(system[1]),
        default=_quote(head.removesuffix(user)),
        user=_quote(user),
        to_answer=_quote(to_answer),
        close=_quote(close),
        gap=_quote(gap),
        generate=_quote(generate),
    )


def _system_head(template: chat.Template, user: str) -> tuple[str, str]:
    """What stands before and after a system text; nothing where the template has no place for one."""
    told = replace(template, system=_SYSTEM)
    written = chat.prompt(Conversation.of(_QUESTIONS[0]), told).partition(_QUESTIONS[0])[0]
    before, found, after = written.partition(_SYSTEM)
    return (before, after.removesuffix(user)) if found else ("", "\n")


_PLAIN = """\
{{%- if messages and messages[0]['role'] == 'system' -%}}
{{{{- {system} + messages[0]['content'] + {system_end} -}}}}
{{%- else -%}}
{{{{- {default} -}}}}
{{%- endif -%}}
{{%- for message in messages if message['role'] != 'system' -%}}
{{%- if message['role'] == 'user' -%}}
{{{{- {user} + message['content'] -}}}}
{{%- else -%}}
{{{{- {to_answer} + message['content'] + {close} + {gap} -}}}}
{{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{- {generate} -}}}}{{%- endif -%}}
"""
"""A user's turn ends where the next one begins, which the mark of an answer does."""


def _quote(text: str) -> str:
    """A jinja string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
