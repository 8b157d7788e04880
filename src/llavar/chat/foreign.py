"""Conversations through a tokenizer's own chat template, a file of a stranger in jinja."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from llavar.chat.templates import Template
from llavar.errors import ConfigError, DataError
from llavar.records import Role, Span, Turn

if TYPE_CHECKING:
    import jinja2


def spans(turns: Sequence[Turn], template: Template) -> Iterator[Span]:
    """Spans found by rendering prefixes: what an answer adds to its generation prompt is what is learned."""
    done = ""
    for index, turn in enumerate(turns):
        if turn.role is not Role.ASSISTANT:
            continue
        asked = text(turns[:index], template, generate=True)
        answered = text(turns[: index + 1], template, generate=False)
        if not (asked.startswith(done) and answered.startswith(asked)):
            _refuse_rewriting(template, index)
        end = _answer_border(answered, len(asked), template)
        yield Span(text=asked[len(done) :])
        yield Span(text=answered[len(asked) : end], learn=True)
        done = answered[:end]
    whole = text(turns, template, generate=False)
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


def text(turns: Sequence[Turn], template: Template, *, generate: bool) -> str:
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


def text_of_parts(said: Sequence[tuple[str, Sequence[str | None]]], template: Template) -> str | None:
    """The prompt that stock engines render of turns (role, parts), a part being a text or None, a picture.

    None where the template does not take lists of parts; where pictures stand is then up to the caller.
    """
    import jinja2

    in_parts = _wants_parts(template.jinja)
    messages = [
        {
            "role": role,
            "content": parts[0] if len(parts) == 1 and parts[0] and not in_parts else _listed(parts),
        }
        for role, parts in said
    ]
    names = {"bos_token": template.bos, "eos_token": template.answer_end}
    try:
        return _compiled(template.jinja).render(messages=messages, add_generation_prompt=True, **names)
    except (jinja2.TemplateError, TypeError):
        return None


def _listed(parts: Sequence[str | None]) -> list[dict[str, str]]:
    return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]


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
