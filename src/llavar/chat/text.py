"""Conversations as text, with the part that is learned marked while it is written, and back."""

from __future__ import annotations

from llavar.chat import foreign
from llavar.chat.pictures import IMAGE_END, IMAGE_PATCH, IMAGE_START
from llavar.chat.templates import Style, Template
from llavar.errors import ConfigError, DataError
from llavar.records import Conversation, Role, Span, Turn


def render(conversation: Conversation, template: Template) -> tuple[Span, ...]:
    """The training text in spans; an answer is learned from just after its label through its separator.

    Each supervised span is one answer with its end, the blank before it included. The one exception is
    ``v0_train``, where the original also learned the assistant's label and every ``###``.

    Raises:
        DataError: a tokenizer's own template refuses the conversation or rewrites earlier turns.
        ConfigError: that template does not close its answers, or is no valid jinja.
    """
    if template.style is Style.OWN:
        return tuple(foreign.spans(conversation.turns, template))
    head = Span(text=_head(template))
    spans = [span for turn in conversation.turns for span in _turn_spans(turn, template)]
    tail = [Span(text=template.tail, learn=True)] if template.tail else []
    return (head, *spans, *tail)


def prompt(asked: Conversation | str, template: Template) -> str:
    """The text to generate from: everything up to and including the open label of the assistant.

    Raises:
        DataError: the conversation is empty or its last turn is an answer already.
    """
    conversation = Conversation.of(asked) if isinstance(asked, str) else asked
    turns = conversation.turns
    if not turns or turns[-1].role is not Role.USER:
        raise DataError("a prompt needs a conversation whose last turn is the user's; add a question")
    if template.style is Style.OWN:
        return foreign.text(turns, template, generate=True)
    body = "".join(_turn_text(turn, template) for turn in turns)
    return _head(template) + body + template.label(Role.ASSISTANT)


def _head(template: Template) -> str:
    opening = Conversation.of(*template.opening).turns
    return template.system + template.system_end + "".join(_turn_text(turn, template) for turn in opening)


def _turn_text(turn: Turn, template: Template) -> str:
    return template.label(turn.role) + template.gap + turn.text + template.end(turn.role)


def _turn_spans(turn: Turn, template: Template) -> tuple[Span, ...]:
    text = _turn_text(turn, template)
    if template.style is Style.V0_TRAINING:
        # The "###" before a user's label is what ends the answer before it at inference.
        cut = len(template.turn_start.rstrip()) if turn.role is Role.USER else len(text)
        learned, rest = Span(text=text[:cut], learn=True), Span(text=text[cut:])
        return (learned, rest) if rest.text else (learned,)
    if turn.role is Role.USER:
        return (Span(text=text),)
    cut = len(template.label(Role.ASSISTANT))
    return (Span(text=text[:cut]), Span(text=text[cut:], learn=True))


def jinja_source(template: Template, *, start_end: bool = True) -> str:
    """A chat template for stock engines that writes what :func:`prompt` and :func:`render` write.

    It starts with ``{{ bos_token }}`` because vLLM adds none to a chat, and takes contents as text or as
    OpenAI's list of parts, where a picture becomes one ``<im_patch>``, with ``start_end`` between
    ``<im_start>`` and ``<im_end>``, on a line of its own; the processor repeats the patch.
    """
    if template.style is Style.OWN:
        return template.jinja
    picture = IMAGE_START + IMAGE_PATCH + IMAGE_END if start_end else IMAGE_PATCH
    opening = "".join(_turn_text(turn, template) for turn in Conversation.of(*template.opening).turns)
    user, assistant = template.label(Role.USER), template.label(Role.ASSISTANT)
    ends = _quote(template.user_end), _quote(template.answer_end)
    return (
        "{{ bos_token }}"
        "{%- if messages and messages[0]['role'] == 'system' -%}"
        "{{ messages[0]['content'] if messages[0]['content'] is string"
        " else messages[0]['content'][0]['text'] }}"
        f"{{%- else -%}}{{{{ {_quote(template.system)} }}}}{{%- endif -%}}"
        f"{{{{ {_quote(template.system_end + opening)} }}}}"
        "{%- for message in messages if message['role'] != 'system' -%}"
        f"{{{{ {_quote(user)} if message['role'] == 'user' else {_quote(assistant)} }}}}"
        f"{{{{ {_quote(template.gap)} }}}}"
        "{%- if message['content'] is string -%}{{ message['content'] }}"
        "{%- else -%}{%- for item in message['content'] -%}"
        "{%- if item['type'] == 'text' -%}{{ item['text'] }}"
        f"{{%- else -%}}{{{{ {_quote(picture)} }}}}{{%- endif -%}}"
        "{%- if not loop.last -%}{{ '\\n' }}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}"
        f"{{{{ {ends[0]} if message['role'] == 'user' else {ends[1]} }}}}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{ {_quote(assistant)} }}}}{{%- endif -%}}"
    )


def _quote(text: str) -> str:
    """A jinja string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


# ---------------------------------------------------------------- back from text


def parse(text: str, template: Template) -> Conversation:
    """The inverse of :func:`render` and :func:`prompt` for texts that hold no separators inside their turns.

    An open label at the end is no turn; an answer without its separator (generation was cut) is one.

    Raises:
        DataError: ``text`` does not follow ``template``.
        ConfigError: the template is a tokenizer's own, which cannot be read backwards.
    """
    if template.style is Style.OWN:
        raise ConfigError(f"chat template {template.name!r} cannot be read backwards; parse with a named one")
    head = _head(template)
    if not text.startswith(head):
        raise DataError(
            f"the text does not begin as {template.name!r} does: {text[:40]!r}; check the template"
        )
    turns: list[Turn] = []
    rest = text[len(head) :]
    while rest and rest != template.tail and rest != template.label(Role.ASSISTANT):
        turn, rest = _parse_turn(rest, template)
        turns.append(turn)
    return Conversation(turns=tuple(turns))


def _parse_turn(text: str, template: Template) -> tuple[Turn, str]:
    for role, other in ((Role.USER, Role.ASSISTANT), (Role.ASSISTANT, Role.USER)):
        opening = template.label(role) + template.gap
        if not text.startswith(opening):
            continue
        body = text[len(opening) :]
        border = body.find(template.end(role) + template.label(other))
        if border >= 0:
            return Turn(role=role, text=body[:border]), body[border + len(template.end(role)) :]
        body = body.removesuffix(template.tail) if template.tail else body
        return Turn(role=role, text=body.removesuffix(template.end(role))), ""
    raise DataError(f"no role of {template.name!r} begins {text[:40]!r}; check the template")


def stop_strings(template: Template) -> tuple[str, ...]:
    """Where an answer ends in generated text."""
    if template.style in (Style.SINGLE, Style.V0_TRAINING):
        return ("###",)
    return (template.answer_end,) if template.answer_end else ()


def clean_answer(text: str, template: Template) -> str:
    """Generated text cut at the first stop string, without white space around it."""
    for stop in stop_strings(template):
        text = text.split(stop, 1)[0]
    return text.strip()
