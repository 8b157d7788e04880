"""Does ``llavar serve`` stand bad requests?

    python benchmarks/serve_fuzz.py [--requests 10000] [--examples 100]

Starts the server with nano on loopback, with an API key and with domains allowed that lead to this machine.
Schemathesis asks what the OpenAPI document describes and what it rules out. Then come bad requests of some 25
kinds from a seed (serve_bad.py): wrong fields, broken pictures, private addresses in every spelling, paths,
smuggled headers, broken HTTP, slow clients, clients that leave.

There must be no status 5xx, no silence, no refusal without a sentence, nothing of a prompt or of the key in
the log, and nothing left over: memory, threads, open files, running and waiting answers. Proper requests in
between get the answer that they got at first. Writes benchmarks/results/serve_fuzz.json; exit status 1 if
something was found.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from serve_bad import Bad, Case
from serve_child import (
    ROOT,
    Child,
    Heard,
    Question,
    Talk,
    Usage,
    answer_of,
    machine,
    questions,
    request,
    talk,
)
from serve_words import CANARY

KEY = "sk-of-the-fuzz-run"
AT_A_TIME = 12
CHUNK = 500
"""Bad requests between two proper ones."""
TIDY = 5.0
"""Seconds in which the server gives memory back to the system after large pictures."""
MORE_MEGABYTES = 96
"""By which memory may grow between the middle of a run and its end: arenas of malloc, not a leak."""
MORE_THREADS = 8
"""Pools fill up only as they are needed: opening pictures, counting tokens."""
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,ignored_auth"
)


@dataclass(slots=True, kw_only=True)
class Found:
    """What came of the bad requests."""

    sent: int = 0
    statuses: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    faults: list[str] = field(default_factory=list[str])

    def note(self, case: Case, said: Talk) -> None:
        self.sent += 1
        heard = ",".join(str(one.status) for one in said.heard) or said.failure or "nothing"
        self.statuses.setdefault(case.family, Counter())[heard] += 1
        self.faults += [f"{case.family}: {fault} ({case.parts[0][:300]!r})" for fault in faults(case, said)]


def faults(case: Case, said: Talk) -> Iterator[str]:
    """What is wrong with the response to a bad request."""
    if case.end in ("leave", "reset", "first"):
        return
    if said.failure == "silence":
        yield "no end of the response"
    if not said.heard and not case.may_be_silent:
        yield f"no response ({said.failure})"
    # What is no HTTP at all may look like several bad requests.
    if len(said.heard) > 1 and any(one.status < 400 for one in said.heard):
        yield f"{len(said.heard)} responses to one request"
    if b"root:" in said.raw:
        yield "a file of the server"
    for one in said.heard:
        yield from wrong(one, case)


def wrong(heard: Heard, case: Case) -> Iterator[str]:
    if not 200 <= heard.status < 500:
        yield f"status {heard.status}"
    elif heard.status < 400 and not case.may_pass:
        yield f"status {heard.status} for a request that is wrong"
    elif heard.status >= 400 and heard.headers.get("content-type") == "application/json":
        sentence = str(heard.document()["error"]["message"]) if heard.body else "of HEAD"
        if not sentence or "\n" in sentence or len(sentence) > 600 or "Traceback" in sentence:
            yield f"no sentence: {sentence[:200]!r}"
    if not heard.whole and heard.body:
        yield "half a response"


async def send(port: int, cases: Sequence[Case], found: Found, seconds: float = 120.0) -> None:
    """All of ``cases``, some at a time."""
    left = iter(cases)

    async def one_after_another() -> None:
        for case in left:
            said = await talk(port, *case.parts, pause=case.pause, end=case.end, seconds=seconds)
            found.note(case, said)

    await asyncio.gather(*(one_after_another() for _ in range(AT_A_TIME)))


def proper(port: int, question: Question, key: str = "") -> str | None:
    """The answer to a proper request, which has to be given however bad the others are."""
    said = asyncio.run(talk(port, request(body=question.body(), key=key)))
    return answer_of(said.heard[0]) if len(said.heard) == 1 else None


def leaks(before: Usage, after: Usage) -> Iterator[str]:
    if after.megabytes > before.megabytes + MORE_MEGABYTES:
        yield f"memory grew from {before.megabytes} to {after.megabytes} MB"
    if after.files > before.files + 2:
        yield f"open files grew from {before.files} to {after.files}"
    if after.threads > before.threads + MORE_THREADS:
        yield f"threads grew from {before.threads} to {after.threads}"


def schemathesis(port: int, examples: int, seed: int, folder: Path) -> dict[str, object]:
    """The result of its command, with the last lines of what it printed if it found something."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{port}/openapi.json"]
    command += ["--checks", CHECKS, "--max-examples", str(examples), "--seed", str(seed), "--no-color"]
    command += [
        "--header",
        f"Authorization: Bearer {KEY}",
        "--request-timeout",
        "60",
        "--continue-on-failure",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    lines = done.stdout.splitlines()
    counted = [
        line.strip() for line in lines if re.search(r"\d+ (generated|passed|failed|skipped)|Test cases", line)
    ]
    return {
        "examples": examples,
        "checks": CHECKS.split(","),
        "exit": done.returncode,
        "counted": counted,
        "said": lines[-80:] + done.stderr.splitlines()[-20:] if done.returncode else [],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument(
        "--examples", type=int, default=100, help="of schemathesis, for each operation; 0: none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "serve_fuzz.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = measured(arguments.requests, arguments.examples, arguments.seed, Path(folder))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in document.items() if name != "statuses"}, indent=1))
    return 1 if document["faults"] else 0


def measured(count: int, examples: int, seed: int, folder: Path) -> dict[str, object]:
    begun = time.monotonic()
    (asked,) = questions(1)
    allowed = ("localhost", "127.0.0.1", "localtest.me", "metadata.google.internal", "::1")
    flags = [part for domain in allowed for part in ("--allow-domain", domain)]
    child = Child(folder / "log", *flags, key=KEY)
    child.start()
    found, usages = Found(), list[Usage]()
    try:
        right = proper(child.port, asked, KEY)
        bad = iter(Bad(seed, key=KEY, picture=base64.b64decode(asked.picture.partition(",")[2])))
        kit = schemathesis(child.port, examples, seed, folder) if examples else None
        child.idle()
        rounds = [min(CHUNK, count - at) for at in range(0, count, CHUNK)]
        for size in rounds:
            asyncio.run(send(child.port, list(islice(bad, size)), found))
            child.idle()
            time.sleep(TIDY)
            usages.append(child.usage())
            if right is None or proper(child.port, asked, KEY) != right:
                found.faults.append(f"a proper request was answered otherwise after {found.sent} bad ones")
        metrics = child.idle()
        ended = child.stop()
    finally:
        if child.process.poll() is None:
            child.kill()
    log = child.log.read_text(errors="replace")
    found.faults += leaks(usages[(len(usages) - 1) // 2], usages[-1])
    for what in (CANARY, KEY, "Traceback"):
        found.faults += [f"the log holds {what!r}: {log[log.index(what) :][:3000]}"] if what in log else []
    found.faults += [f"the server ended with status {ended}"] if ended else []
    found.faults += ["schemathesis found something"] if kit and kit["exit"] else []
    return {
        "command": f"python benchmarks/serve_fuzz.py --requests {count} --examples {examples} --seed {seed}",
        "machine": machine(),
        "seconds": round(time.monotonic() - begun),
        "requests": found.sent,
        "families": len(found.statuses),
        "faults": found.faults[:50],
        "fault_count": len(found.faults),
        "schemathesis": kit,
        "proper_requests_between": len(rounds),
        "usage_after_each_500": [asdict(usage) for usage in usages],
        "left_over": {name: value for name, value in metrics.items() if value == 0 and "_answers_" in name},
        "statuses": {family: dict(counts) for family, counts in sorted(found.statuses.items())},
    }


if __name__ == "__main__":
    sys.exit(main())
