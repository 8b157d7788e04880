"""Which teachers a recipe can name by ``kind``; the template teacher where it names none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import Discriminator, Tag

from llavar.corpus.teach import TemplateTeacher
from llavar.corpus.teaching.teacher import EndpointTeacher


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return str(cast("Mapping[str, Any]", value).get("kind", "template"))
    return str(getattr(value, "kind", "template"))


TeacherChoice = Annotated[
    Annotated[TemplateTeacher, Tag("template")] | Annotated[EndpointTeacher, Tag("endpoint")],
    Discriminator(
        _kind,
        custom_error_type="teacher",
        custom_error_message="the kind of a teacher is template or endpoint",
    ),
]
