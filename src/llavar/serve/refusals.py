"""Why a request gets no answer: a status, a sentence, and OpenAI's form for both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from llavar.errors import ConfigError, ContextLengthError, DataError, FetchError, ImageError, LlavarError
from llavar.generate.dialogue import BusyError
from llavar.serve.schema import ErrorReply, Failure

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "forbidden_origin",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    429: "queue_full",
    500: "internal_error",
    503: "unavailable",
}
_LONGEST = 60
_KINDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
}
_BOUNDS = {
    "greater_than_equal": "at least",
    "greater_than": "more than",
    "less_than_equal": "at most",
    "less_than": "less than",
}


class Refusal(Exception):
    """Ends the handling of a request; becomes its response."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status, self.message, self.param = status, " ".join(message.split()), param
        self.code = code or _CODES.get(status, "error")
        self.headers = dict(headers or {})

    @property
    def document(self) -> ErrorReply:
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return ErrorReply(error=Failure(message=self.message, type=kind, param=self.param, code=self.code))

    def response(self) -> JSONResponse:
        return JSONResponse(self.document.model_dump(), status_code=self.status, headers=self.headers)


def refused(error: LlavarError, *, closing: bool = False, param: str | None = None) -> Refusal:
    """The response to an error of ours: what the request did wrong, or that nobody can take it now."""
    if isinstance(error, BusyError):
        later = {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
        return Refusal(503, str(error), headers=later) if closing else Refusal(429, str(error), headers=later)
    if isinstance(error, ImageError | FetchError):
        return Refusal(400, str(error), param=param or "messages", code="invalid_image")
    if isinstance(error, ContextLengthError):
        return Refusal(400, str(error), param=param or "messages", code="context_length_exceeded")
    if isinstance(error, ConfigError | DataError):
        return Refusal(400, str(error), param=param)
    return broken()


def broken() -> Refusal:
    """A failure of ours. What it was goes to the log, since it may hold paths."""
    return Refusal(500, "the model failed on this request; the server's log says how")


def malformed(error: ValidationError) -> Refusal:
    """One sentence for what may be hundreds of complaints: the first, and how many more there are."""
    found = error.errors(include_url=False)
    first = found[0]
    if first["type"] == "json_invalid":
        reason = str(first.get("ctx", {}).get("error", "it cannot be read"))
        return Refusal(400, f"the body is not JSON: {reason[:200]}", code="invalid_json")
    place = _place(first["loc"])
    more = f" ({len(found) - 1} more fields are wrong too)" if len(found) > 1 else ""
    return Refusal(
        400, f"{place or 'the body'} {_complaint(cast(dict[str, Any], first))}{more}", param=place or None
    )


def _place(path: tuple[int | str, ...]) -> str:
    """``messages[0].content``: indices in brackets; tags of unions, which hold brackets, left out."""
    place = ""
    for step in path:
        if isinstance(step, int):
            place += f"[{step}]"
        elif not step.startswith("("):
            place += f".{step}" if place else step
    return place


def _complaint(error: dict[str, Any]) -> str:
    kind, context = str(error["type"]), cast(dict[str, Any], error.get("ctx") or {})
    given = _given(error.get("input"))
    if kind == "missing":
        return "is missing"
    if kind in _KINDS:
        return f"{_KINDS[kind]}{given}"
    if kind in _BOUNDS:
        return f"must be {_BOUNDS[kind]} {next(iter(context.values()))}{given}"
    if kind == "too_short":
        return f"is empty; give at least {context['min_length']}"
    if kind == "too_long" and context["max_length"] == 0:
        return "cannot be used here: these models answer with text alone; leave it out"
    if kind == "too_long":
        return f"has {context['actual_length']} entries; give at most {context['max_length']}"
    if kind == "string_too_short":
        return "is an empty text; give at least one character"
    if kind == "string_too_long":
        return f"is a text of more than {context['max_length']} characters, the limit"
    if kind == "literal_error":
        return f"must be {context['expected']}{given}"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}{given}"


def _given(value: object) -> str:
    """The value that is wrong, where it is short enough to help."""
    if isinstance(value, bool) or value is None:
        return f", not {str(value).lower() if value is not None else 'null'}"
    if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _LONGEST):
        shown = repr(value)
        return f", not {shown}" if len(shown) <= _LONGEST + 20 else ""
    if isinstance(value, dict):
        named = cast(dict[str, Any], value).get("type")
        return f", not {named!r}" if isinstance(named, str) and len(named) <= _LONGEST else ""
    return ""
