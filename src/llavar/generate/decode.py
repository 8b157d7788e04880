"""The decoding loop: greedy or drawn, row by row as each request wants it, independent of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llavar.generate.base import Request, request_seed
from llavar.models.steps import Running

Stopped = Callable[[Sequence[int]], bool]
"""Whether an answer, as the ids made so far, is finished."""


class Chooser:
    """Chooses the next token of every row, as its request asks.

    A row draws with uniform numbers of its own, made at the start from :func:`request_seed`: the n-th token
    of an answer takes the n-th number, whatever the other rows do, and on every device.
    """

    def __init__(self, requests: Sequence[Request], device: torch.device) -> None:
        decodings = [request.decoding for request in requests]
        self._greedy = all(decoding.greedy for decoding in decodings)
        if self._greedy:
            return
        longest = max(request.max_new_tokens for request in requests)
        uniform = torch.zeros(len(requests), longest, dtype=torch.float64)
        for row, request in enumerate(requests):
            if not request.decoding.greedy:
                stream = torch.Generator().manual_seed(request_seed(request))
                length = request.max_new_tokens
                uniform[row, :length] = torch.rand(length, generator=stream, dtype=torch.float64)
        self._uniform = uniform.to(device)
        self._temperature = torch.tensor([d.temperature for d in decodings], device=device)[:, None]
        self._top_p = torch.tensor([d.top_p for d in decodings], device=device, dtype=torch.float64)[:, None]

    def __call__(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """Tokens (R,) from logits (R, V) of the rows that still run, at the ``step``-th token from 0."""
        likeliest = logits.argmax(-1)
        if self._greedy:
            return likeliest
        temperature = self._temperature[rows]
        drawn = draw(
            logits.float() / temperature.clamp(min=1e-4), self._top_p[rows], self._uniform[rows, step]
        )
        return torch.where(temperature[:, 0] == 0, likeliest, drawn)


def draw(logits: Tensor, top_p: Tensor, uniform: Tensor) -> Tensor:
    """Tokens (R,) by the inverse of the cumulated probabilities, likeliest first.

    ``logits`` (R, V), ``top_p`` (R, 1): kept are the likeliest tokens until their sum reaches it, at least
    one. ``uniform`` (R,) in [0, 1) decides among them.
    """
    probability, order = torch.sort(logits.double().softmax(-1), dim=-1, descending=True, stable=True)
    before = probability.cumsum(-1) - probability
    kept = torch.where(before < top_p, probability, 0.0)
    kept[:, 0] = probability[:, 0]
    cumulated = kept.cumsum(-1)
    place = (cumulated <= uniform[:, None] * cumulated[:, -1:]).sum(-1, keepdim=True)
    last = (kept > 0).sum(-1, keepdim=True) - 1  # rounding must not lead past what was kept
    return order.gather(1, torch.minimum(place, last))[:, 0]


@torch.inference_mode()
def decode(
    running: Running, requests: Sequence[Request], *, end: int | None, stopped: Stopped | None = None
) -> list[list[int]]:
    """The ids made for each request, the end token (if it came) included.

    A row ends with the token ``end``, when ``stopped`` says so, or at its ``max_new_tokens``; rows that have
    ended leave the batch, so that one long answer does not cost as much as a batch of them.
    """
    device = running.logits.device
    choose = Chooser(requests, device)
    made: list[list[int]] = [[] for _ in requests]
    rows, step = list(range(len(requests))), 0
    while True:
        tokens = choose(running.logits, torch.tensor(rows, device=device), step)
        step += 1
        going: list[int] = []
        chosen = tokens.cpu().numpy().tolist()
        for place, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            made[row].append(token)
            full = len(made[row]) >= requests[row].max_new_tokens
            if not (full or token == end or (stopped is not None and stopped(made[row]))):
                going.append(place)
        if not going:
            return made
        if len(going) < len(rows):
            kept = torch.tensor(going, device=device)
            running.keep(kept)
            tokens, rows = tokens[kept], [rows[place] for place in going]
        running.step(tokens)
