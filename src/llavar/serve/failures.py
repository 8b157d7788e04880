"""How exceptions of routes become responses."""

from __future__ import annotations

import logging
from typing import cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from llavar.errors import LlavarError
from llavar.serve.edge import GONE, request_id, tally
from llavar.serve.refusals import Refusal, refused
from llavar.serve.running import Gone

log = logging.getLogger("llavar.serve")

_LONGEST = 300


def add(app: FastAPI) -> None:
    """Give ``app`` a response in OpenAI's form for everything that can be wrong with a request."""

    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(LlavarError, _ours)
    app.add_exception_handler(Gone, _gone)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(HTTPException, _other)
    app.add_exception_handler(RequestValidationError, _invalid)


def note(id: str, refusal: Refusal) -> None:
    """Log a failure of ours. Such sentences are about checkpoints, never about what was asked."""
    if refusal.status == 500:
        cause = refusal.__cause__
        log.error("id=%s failed: %s: %s", id, type(cause).__name__, str(cause)[:_LONGEST])


async def _refused(request: Request, error: Exception) -> Response:
    refusal = cast(Refusal, error)
    note(request_id(request), refusal)
    return refusal.response()


async def _ours(request: Request, error: Exception) -> Response:
    refusal = refused(cast(LlavarError, error))
    refusal.__cause__ = error
    return await _refused(request, refusal)


async def _gone(request: Request, _: Exception) -> Response:
    tally(request).gone = True
    return Response(status_code=GONE)


async def _invalid(_: Request, __: Exception) -> Response:
    return Refusal(400, "the request's path or query cannot be read; see /openapi.json").response()


async def _other(request: Request, error: Exception) -> Response:
    """What the framework refuses, in the same form as the rest."""
    error = cast(HTTPException, error)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        sentence = "there is nothing at this path; see /openapi.json for what is"
    elif error.status_code == 405:
        allowed = headers.get("Allow", headers.get("allow", "another method"))
        sentence = f"{request.method[:20]} cannot be used here; use {allowed}"
    else:
        sentence = str(error.detail)[:200]
    return Refusal(error.status_code, sentence, headers=headers).response()
