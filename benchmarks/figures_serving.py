"""Sections of docs/numbers.md on serving, for benchmarks/figures.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SERVING = """\
## Serving

`{command}`; {machine}, load {load} before. Raw: `serving.json`. {model}, every server with {threads} thread for its
arithmetic, one after the other in one run; each request shows a picture and asks for its text, greedy. Closed loop:
each client asks again as soon as it has its answer. `natural` answers end by themselves (about five tokens), `fixed`
ones have {tokens} tokens.{note}

| answers | clients | server | requests/s | tokens/s | first token, median / p99, ms | whole, median / p99, ms | peak memory | answers equal |
|---|---|---|---|---|---|---|---|---|
{rows}

{skipped}{goals}
"""  # noqa: E501

LOAD = """\
## Twice what it can

`{command}`; {machine}. Raw: `serve_load.json`. Nano, {slots} slots, {may_wait} places to wait; capacity measured first:
{capacity:.1f} requests/s. Then {minutes:g} minutes of arrivals at {arrivals:.0f} a second, whoever waits:

- {asked:,} requests: {right:,} answered, each compared with the answer that its question gets alone; {busy:,} told to
  come back (429 with Retry-After); lost, mixed up or wrong: {wrong}.
- Of those answered: median {p50:.2f} s, p99 {p99:.2f} s, longest {longest:.2f} s; a full queue alone explains
  {queue:.2f} s. Unloaded, p99 is {calm:.2f} s.
- Memory: {first:.0f} MB at the start, {last:.0f} MB at the end; fitted slope {growth:+.1f} MB a minute, which says
  something about runs of five minutes and more only.
- {kills} times `kill -9` under load: what clients saw is {seen}; no answer that was cut short passed for a whole one.

Faults found: {faults}.
"""  # noqa: E501

FUZZ = """\
## Bad requests

`{command}`; {machine}. Raw: `serve_fuzz.json`. {requests:,} bad requests of {families} families to a running server, and
schemathesis on its OpenAPI document ({cases}): {faults}. Between them {proper} proper requests were answered
rightly. Memory after each 500: {memory} MB; threads {threads}; open files {files}.
"""  # noqa: E501


def serving(document: Any) -> str:
    """What one server does beside its peers."""
    machine = document["machine"]
    servers = document["servers"]
    loads = [name for name in ("natural", "fixed") if any(name in one for one in servers.values())]
    rows: list[str] = []
    skipped: list[str] = []
    for load in loads:
        for clients in document["requests"]:
            for name, server in servers.items():
                one = server.get(load, {}).get(clients)
                if one is not None:
                    rows.append(_served(load, clients, name, one))
    for name, server in servers.items():
        reasons = {one["skipped"] for one in server.values() if isinstance(one, Mapping) and "skipped" in one}
        skipped += [f"{name} did not run: {reason}.\n\n" for reason in sorted(reasons)]
    return SERVING.format(
        command=document["command"],
        machine=f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}",
        load=machine["load_before"],
        model=document["model"],
        threads=document["threads"],
        tokens=document["tokens"]["fixed"],
        note=f" Note of the run: {document['note']}." if document.get("note") else "",
        rows="\n".join(rows),
        skipped="".join(skipped),
        goals="\n".join(_goals(document["goals"])),
    )


def _served(load: str, clients: str, name: str, one: Mapping[str, Any]) -> str:
    first, whole = (
        f"{one[part]['median'] * 1000:.0f} / {one[part]['p99'] * 1000:.0f}" for part in ("first", "whole")
    )
    return (
        f"| {load} | {clients} | {name} | {one['requests_per_second']:.1f} | "
        f"{one['tokens_per_second']:.0f} | {first} | {whole} | "
        f"{one['peak_rss'] / 1e9:.2f} GB | {one['equal']:.0%} |"
    )


def _goals(goals: Mapping[str, float]) -> list[str]:
    """At 8 and more clients 3 x transformers and vLLM / 1.5; the first token at most 1.1 x a plain loop."""
    lines: list[str] = []
    for name, ratio in goals.items():
        if "first token" in name:
            lines.append(f"- {name}: {ratio:.2f} (goal: at most 1.1; {_met(ratio <= 1.1)})")
        elif ", 1 clients" in name:
            lines.append(f"- {name}: {ratio:.2f} (no goal)")
        elif "transformers" in name:
            lines.append(f"- {name}: {ratio:.2f} (goal: at least 3; {_met(ratio >= 3)})")
        elif "vllm" in name:
            lines.append(f"- {name}: {ratio:.2f} (goal: at least 0.67; {_met(ratio >= 1 / 1.5)})")
    return lines


def _met(is_met: bool) -> str:
    return "met" if is_met else "**missed**"


def load(document: Any) -> str:
    """A server that is asked for twice what it can do."""
    over, kills = document["overload"], document["kills"]
    right, busy = over["seen"].get("right", 0), over["seen"].get("busy", 0)
    memory = document["memory"]
    return LOAD.format(
        command=document["command"],
        machine=_machine(document),
        slots=document["slots"],
        may_wait=document["may_wait"],
        capacity=document["capacity_per_second"],
        minutes=over["minutes"],
        arrivals=over["arrivals_per_second"],
        asked=over["asked"],
        right=right,
        busy=busy,
        wrong=over["asked"] - right - busy,
        p50=over["p50"],
        p99=over["p99"],
        longest=over["longest"],
        queue=over["queue_explains"],
        calm=document["calm"]["p99"],
        growth=memory["megabytes_per_minute"],
        first=memory["first"]["megabytes"],
        last=memory["last"]["megabytes"],
        kills=kills["kills"],
        seen=", ".join(f"{count} {name}" for name, count in kills["seen"].items()),
        faults="; ".join(document["faults"]) or "none",
    )


def fuzz(document: Any) -> str:
    """What bad requests did."""
    usage = document["usage_after_each_500"]

    def span(name: str) -> str:
        low, high = (bound(one[name] for one in usage) for bound in (min, max))
        return f"{low:g} to {high:g}"

    return FUZZ.format(
        command=document["command"],
        machine=_machine(document),
        requests=document["requests"],
        families=document["families"],
        cases=document["schemathesis"]["counted"][-1],
        faults="; ".join(document["faults"]) or "no 5xx, no undocumented status, nothing leaked",
        proper=document["proper_requests_between"],
        memory=", ".join(f"{one['megabytes']:.0f}" for one in usage),
        threads=span("threads"),
        files=span("files"),
    )


def _machine(document: Any) -> str:
    machine = document["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']} before"
