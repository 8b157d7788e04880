"""``llavar tasks``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from llavar.cli.arguments import Commands

if TYPE_CHECKING:
    from llavar.evals.tasks import Benchmark


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "tasks",
        help="list the benchmarks, the files that they read, and which of those are there",
        description="List the benchmarks. With --data, say which of their files are there; with a name as "
        "well, read them and show the first question. Nothing is ever downloaded.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="one task, in detail")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder that holds the benchmarks' files")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(command=_tasks)


def _tasks(arguments: argparse.Namespace) -> int:
    from llavar.errors import NotFoundError
    from llavar.evals import tasks

    data: Path | None = arguments.data
    if data and not data.is_dir():
        raise NotFoundError(f"there is no folder at {data}; give the one that holds the benchmarks' files")
    chosen = [tasks.get(arguments.name)] if arguments.name else [tasks.get(name) for name in tasks.names()]
    if arguments.json:
        print(json.dumps({"tasks": [_document(task, data) for task in chosen]}, ensure_ascii=False))
    elif arguments.name:
        _detail(chosen[0], data)
    else:
        _table(chosen, data)
    return 0


def _table(chosen: list[Benchmark], data: Path | None) -> None:
    width = max(len(task.name) for task in chosen)
    for task in chosen:
        state = f"{_state(task, data):12} " if data else ""
        count = str(task.n or "")
        print(f"{task.name:{width}}  {state}{count:>5}  {task.metric:18} {task.about}")
    columns = f"name, {'files, ' if data else ''}questions in the official files, metric, about"
    print(f"\n{len(chosen)} tasks: {columns}.")
    print("llavar tasks NAME shows the files of one and where they come from.")


def _detail(task: Benchmark, data: Path | None) -> None:
    also = f" (also {', '.join(task.also)})" if task.also else ""
    print(f"{task.name}: {task.about}\nmetric    {task.metric}{also}")
    for category, metric in task.metric_of.items():
        print(f"          {metric} for {category}")
    print(f"questions {task.n or 'as many as the files hold'}")
    for file in task.files:
        found = file.find(data) if data else None
        state = "" if not data else f"[found] {found}\n  " if found else "[missing] "
        optional = "" if file.required else ", optional"
        places = "\n    or ".join(file.path.split(" | "))
        print(f"- {state}{places}\n    {file.what}; from {file.source}{optional}")
    if data and _ready(task, data):
        loaded = task.load(data)
        first = loaded.questions[0]
        print(f"\n{len(loaded.questions)} questions, pictures in {loaded.image_root}; the first:")
        print(f"  {first.id}  {first.image}\n  {first.text}\n  {', '.join(map(repr, first.references))}")


def _document(task: Benchmark, data: Path | None) -> dict[str, object]:
    return {
        "name": task.name,
        "about": task.about,
        "metric": task.metric,
        "metric_of": dict(task.metric_of),
        "also": list(task.also),
        "n": task.n or None,
        "max_new_tokens": task.max_new_tokens,
        "ready": _ready(task, data) if data else None,
        "files": [
            {
                "path": file.path.split(" | "),
                "what": file.what,
                "source": file.source,
                "required": file.required,
                "found": str(found) if data and (found := file.find(data)) else None,
            }
            for file in task.files
        ],
    }


def _state(task: Benchmark, data: Path) -> str:
    required = [file for file in task.files if file.required]
    missing = sum(file.find(data) is None for file in required)
    return f"{missing}/{len(required)} missing" if missing else "ready"


def _ready(task: Benchmark, data: Path) -> bool:
    return all(file.find(data) for file in task.files if file.required)
