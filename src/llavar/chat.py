"""Conversations as text, with the part that is learned marked while it is written.

A template is data (:class:`Template`); adding one touches this file alone. Its strings are format
constants: released weights were trained with exactly these characters. The beginning-of-sequence token
is left to the tokenizer, so no text here holds one, except where a tokenizer's own chat template writes
it (the encoder drops the second).

Sources: ``llava/conversation.py`` and ``llava/train/train.py`` of the original code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from llavar.errors import ConfigError, DataError
from llavar.records import IMAGE_TAG, Conversation, Role, Span, Turn

if TYPE_CHECKING:
    import jinja2

IMAGE_PATCH = "<im_patch>"
IMAGE_START = "<im_start>"
IMAGE_END = "<im_end>"

LLAVA_SYSTEM = (
    "You are LLaVA, a large language and vision assistant trained by UW Madison WAIV Lab."
    "You are able to understand the visual content that the user provides,"
    " and assist the user with a variety of tasks using natural language."
    "Follow the instructions carefully and explain your answers in detail."
)
"""The system text of ``llava_v1``; that no blank follows the full stops is part of the format."""

_VICUNA_SYSTEM = (
    "A chat between a curious {person} and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the {person}'s questions."
)

_MPT_SYSTEM = (
    "<|im_start|>system\n"
    "- You are LLaVA, a large language and vision assistant trained by UW Madison WAIV Lab.\n"
    "- You are able to understand the visual content that the user provides,"
    " and assist the user with a variety of tasks using natural language.\n"
    "- You should follow the instructions carefully and explain your answers in detail."
)


class Style(StrEnum):
    """How roles, texts and separators are joined."""

    TWO = "two"
    """``ROLE: text``; users and assistants end in different separators."""
    SINGLE = "single"
    """``ROLE: text###``."""
    MPT = "mpt"
    """``ROLEtext<|im_end|>``, the role ending in a newline."""
    V0_TRAINING = "v0_training"
    """``### ROLE: text`` by lines. Here the assistant's role and the next ``###`` are learned as well."""
    OWN = "own"
    """A tokenizer's own chat template, in jinja."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Everything that turns a conversation into text.

    ``opening`` holds turns, the user first, that stand in every prompt and are never learned. ``turn_start``
    precedes each role, ``tail`` closes a training text. ``jinja`` and ``bos`` serve :attr:`Style.OWN` only.
    """

    name: str
    style: Style
    system: str = ""
    system_end: str = ""
    user: str = "USER"
    assistant: str = "ASSISTANT"
    user_end: str = ""
    answer_end: str = ""
    opening: tuple[str, ...] = ()
    turn_start: str = ""
    tail: str = ""
    jinja: str = ""
    bos: str = ""

    @property
    def gap(self) -> str:
        """What stands between a role and its text, and is left off where a turn is open."""
        return "" if self.style is Style.MPT else " "

    def label(self, role: Role) -> str:
        """How a turn of ``role`` begins, up to where a generation prompt stops."""
        name = self.user if role is Role.USER else self.assistant
        return self.turn_start + name + ("" if self.style is Style.MPT else ":")

    def end(self, role: Role) -> str:
        """How a turn of ``role`` ends."""
        return self.user_end if role is Role.USER else self.answer_end


def templates() -> tuple[Template, ...]:
    """The templates that have a name, LLaVAR's own first."""
    return (
        Template(
            name="llava_v1",
            style=Style.TWO,
            system=LLAVA_SYSTEM,
            system_end=" ",
            user_end=" ",
            answer_end="</s>",
        ),
        Template(
            name="vicuna_v1_1",
            style=Style.TWO,
            system=_VICUNA_SYSTEM.format(person="user"),
            system_end=" ",
            user_end=" ",
            answer_end="</s>",
        ),
        Template(
            name="multimodal",
            style=Style.SINGLE,
            system=LLAVA_SYSTEM,
            system_end="###",
            user="Human",
            assistant="Assistant",
            user_end="###",
            answer_end="###",
            opening=("Hi!", "Hi there!  How can I help you today?\n"),
        ),
        Template(
            name="v0_train",
            style=Style.V0_TRAINING,
            system=_VICUNA_SYSTEM.format(person="human"),
            system_end="\n\n",
            user="Human",
            assistant="Assistant",
            user_end="\n",
            answer_end="\n",
            turn_start="### ",
            tail="### ",
        ),
        Template(
            name="mpt_multimodal",
            style=Style.MPT,
            system=_MPT_SYSTEM,
            system_end="<|im_end|>",
            user="<|im_start|>user\n",
            assistant="<|im_start|>assistant\n",
            user_end="<|im_end|>",
            answer_end="<|im_end|>",
        ),
    )


def get(name: str) -> Template:
    """The template called ``name``.

    Raises:
        ConfigError: there is none, or it is ``plain``, which cannot carry OCR targets.
    """
    known = {template.name: template for template in templates()}
    if name == "plain":
        raise ConfigError(
            "conversation 'plain' throws the instruction away and learns a bare caption, which is wrong"
            f" where the answer is text read in the picture; use one of {', '.join(known)}"
        )
    if name not in known:
        raise ConfigError(f"conversation {name!r} is not known; use one of {', '.join(known)}")
    return known[name]


def for_checkpoint_name(folder: str) -> Template:
    """The template that the original chose by a checkpoint's folder name: a default for old ones only."""
    name = re.split(r"[/\\]", folder.rstrip("/\\"))[-1].lower()
    if "v1" in name:
        return get("llava_v1")
    return get("mpt_multimodal" if "mpt" in name else "multimodal")


def own(jinja: str, *, name: str = "own", bos: str = "", eos: str = "", system: str = "") -> Template:
    """A tokenizer's chat template behind the same interface; ``system`` "" keeps the template's default."""
    return Template(name=name, style=Style.OWN, jinja=jinja, bos=bos, answer_end=eos, system=system)


# ---------------------------------------------------------------- text


def render(conversation: Conversation, template: Template) -> tuple[Span, ...]:
    """The training text in spans; an answer is learned from just after its label through its separator.

    Each supervised span is one answer with its end, the blank before it included. The one exception is
    ``v0_train``, where the original also learned the assistant's label and every ``###``.

    Raises:
        DataError: a tokenizer's own template refuses the conversation or rewrites earlier turns.
        ConfigError: that template does not close its answers, or is no valid jinja.
    """
    if template.style is Style.OWN:
        return tuple(_own_spans(conversation.turns, template))
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
        return _own_text(turns, template, generate=True)
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


# ---------------------------------------------------------------- a tokenizer's own template


def _own_spans(turns: Sequence[Turn], template: Template) -> Iterator[Span]:
    """Spans found by rendering prefixes: what an answer adds to its generation prompt is what is learned."""
    done = ""
    for index, turn in enumerate(turns):
        if turn.role is not Role.ASSISTANT:
            continue
        asked = _own_text(turns[:index], template, generate=True)
        answered = _own_text(turns[: index + 1], template, generate=False)
        if not (asked.startswith(done) and answered.startswith(asked)):
            _refuse_rewriting(template, index)
        end = _answer_border(answered, len(asked), template)
        yield Span(text=asked[len(done) :])
        yield Span(text=answered[len(asked) : end], learn=True)
        done = answered[:end]
    whole = _own_text(turns, template, generate=False)
    if not whole.startswith(done):
        _refuse_rewriting(template, len(turns) - 1)
    if len(whole) > len(done):
        yield Span(text=whole[len(done) :])


def _answer_border(text: str, asked: int, template: Template) -> int:
    """Where the answer that begins at ``asked`` ends, its separator included."""
    if not template.answer_end:
        return len(text)
    end = text.rfind(template.answer_end)
    if end < asked:
        raise ConfigError(
            f"chat template {template.name!r} does not close an answer with {template.answer_end!r},"
            " so a model would not learn to stop; name a conversation such as llava_v1 instead"
        )
    return end + len(template.answer_end)


def _refuse_rewriting(template: Template, index: int) -> NoReturn:
    raise DataError(
        f"chat template {template.name!r} writes earlier turns differently once turn {index + 1} is there,"
        " so what is learned would not be what is generated; split the conversation into single questions"
    )


def _own_text(turns: Sequence[Turn], template: Template, *, generate: bool) -> str:
    import jinja2

    said = [(turn.role.value, turn.text) for turn in turns]
    if template.system:
        said.insert(0, ("system", template.system))
    names = {"bos_token": template.bos, "eos_token": template.answer_end}
    try:
        messages = _messages(said, in_parts=_wants_parts(template.jinja))
        return _compiled(template.jinja).render(messages=messages, add_generation_prompt=generate, **names)
    except (jinja2.TemplateError, TypeError) as error:
        raise DataError(
            f"chat template {template.name!r} refuses the conversation ({error}); check its turns"
        ) from error


def _messages(said: Sequence[tuple[str, str]], *, in_parts: bool) -> list[dict[str, object]]:
    """Messages as chat templates take them: contents as text, or as lists of one text part."""
    return [
        {"role": role, "content": [{"type": "text", "text": text}] if in_parts else text}
        for role, text in said
    ]


@lru_cache(maxsize=8)
def _wants_parts(source: str) -> bool:
    """Whether a template loses plain text: those of multimodal models often read lists of parts alone."""
    import jinja2

    try:
        messages = _messages([("user", "probe")], in_parts=False)
        return "probe" not in _compiled(source).render(messages=messages, bos_token="", eos_token="")
    except (jinja2.TemplateError, TypeError):
        return True


@lru_cache(maxsize=8)
def _compiled(source: str) -> jinja2.Template:
    """A chat template comes from a file of a stranger, so it runs in jinja's sandbox."""
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """The block by which transformers marks answers; spans need no such mark, so it is passed over."""

        tags = {"generation"}  # noqa: RUF012 - jinja's interface

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse  # pyright: ignore[reportArgumentType]
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"the chat template is no valid jinja ({error}); repair it") from error


def jinja_source(template: Template) -> str:
    """A chat template for stock engines that writes what :func:`prompt` and :func:`render` write.

    It starts with ``{{ bos_token }}`` because vLLM adds none to a chat, and takes contents as text or as
    OpenAI's list of parts, where a picture becomes one ``<im_patch>`` between start and end, on a line of
    its own; the processor repeats the patch.
    """
    if template.style is Style.OWN:
        return template.jinja
    picture = IMAGE_START + IMAGE_PATCH + IMAGE_END
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


# ---------------------------------------------------------------- pictures and hostile text


def with_image(question: str, *, first: bool) -> str:
    """A question about one picture, the tag before it (training) or after it (the original's evaluation)."""
    return f"{IMAGE_TAG}\n{question}" if first else f"{question}\n{IMAGE_TAG}"


def expand_images(
    text: str, n_tokens: int | Sequence[int], start_end: bool, *, patch: str = IMAGE_PATCH
) -> str:
    """``text`` with each image tag replaced by as many ``<im_patch>`` as that picture has tokens.

    ``n_tokens`` is one count for all pictures, or one for each. ``start_end`` puts ``<im_start>`` and
    ``<im_end>`` around them (the original's ``mm_use_im_start_end``). ``patch`` is the placeholder of
    checkpoints that have another one.

    Raises:
        DataError: there are more or fewer tags than counts.
    """
    pieces = text.split(IMAGE_TAG)
    counts = [n_tokens] * (len(pieces) - 1) if isinstance(n_tokens, int) else list(n_tokens)
    if len(counts) != len(pieces) - 1:
        raise DataError(
            f"the text has {len(pieces) - 1} {IMAGE_TAG} tags for {len(counts)} images; give one tag for each"
        )
    opening, closing = (IMAGE_START, IMAGE_END) if start_end else ("", "")
    out = [pieces[0]]
    for count, piece in zip(counts, pieces[1:], strict=True):
        out.append(opening + patch * count + closing + piece)
    return "".join(out)


def escape_special(text: str) -> str:
    """Text from OCR with a blank put into whatever a model or template would take for a control string.

    ``<image>`` becomes ``< image>``, ``</s>`` becomes ``< /s>``, ``###`` becomes ``# # #`` and ``USER:``
    becomes ``USER :``: readable, and nothing but blanks is added. Doing it twice changes nothing more.
    """
    text = re.sub(r"<(?=(?:image|im_patch|im_start|im_end|/?s|unk|pad)>|\|)", "< ", text)
    text = re.sub(r"\[(?=PAD\])", "[ ", text)
    text = re.sub(r"#{3,}", lambda match: " ".join(match[0]), text)
    return re.sub(rf"({_roles()}):", r"\1 :", text)


def _roles() -> str:
    names = {name for template in templates() for name in (template.user, template.assistant)}
    return "|".join(sorted(re.escape(name) for name in names if not name.endswith("\n")))
