"""The environment half: Python, libraries, hardware, and room."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Any

from llavar.study.doctor.findings import Finding, note, ok, problem
from llavar.version import __version__

_OLDEST_PYTHON = (3, 11)
_TRANSFORMERS = ((5, 17), (6, 0))
_PACKAGES = {
    "safetensors": "checkpoints",
    "tokenizers": "tokenizers",
    "sentencepiece": "tokenizer.model of LLaMA",
    "PIL": "pictures",
}
_DISTRIBUTIONS = {"PIL": "pillow"}
_LITTLE_DISK = 2 << 30
_IMPORT_SECONDS = 120


def environment(place: Path) -> Iterator[Finding]:
    """This Python, its libraries, the hardware, and the room in ``place`` and in memory."""
    yield _python()
    yield from _guarded("torch", _torch)
    yield from _guarded("torchvision", _torchvision)
    yield _transformers()
    for package, use in _PACKAGES.items():
        yield _package(package, use)
    yield _protobuf()
    yield _disk(place)
    yield _memory()


def _guarded(subject: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A broken installation can fail in any way when it is imported."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        yield problem(subject, f"cannot be imported ({reason})", f"install it again: pip install {subject}")


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        wanted = ".".join(map(str, _OLDEST_PYTHON))
        return problem("python", f"{version}, and {wanted} or later is needed", f"install Python {wanted}")
    return ok("python", f"{version}, {platform.system()} {platform.machine()}, llavar {__version__}")


def _torch() -> Iterator[Finding]:
    import torch

    backends: Any = torch.backends
    cuda: str | None = torch.version.cuda
    build = f"CUDA {cuda}" if cuda else "ROCm" if torch.version.hip else "CPU"
    yield ok("torch", f"{torch.__version__}, {build} build, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            yield ok(
                "accelerator", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB of its memory free"
            )
    elif has_nvidia():
        text = f"an NVIDIA GPU is here, and torch ({build} build) does not use it"
        remedy = (
            "update the NVIDIA driver, or take a torch for the driver's version of CUDA"
            if cuda
            else "install a CUDA build of torch, see https://pytorch.org/get-started/locally"
        )
        yield problem("accelerator", text, remedy)
    elif backends.mps.is_available():
        yield note("accelerator", "Apple's GPU (mps) is here; llavar computes on the CPU beside it")
    else:
        unused = "; this torch is a CUDA build, which only costs room on the disk" if cuda else ""
        yield note("accelerator", f"none, so models run on the CPU{unused}")


def has_nvidia() -> bool:
    """Whether an NVIDIA driver is loaded, whatever torch thinks."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


def _torchvision() -> Iterator[Finding]:
    """Not needed here, but transformers imports it where it is, and a wrong build breaks that import."""
    installed = _version("torchvision")
    if not installed:
        yield ok("torchvision", "not installed, and not needed")
        return
    import torch

    mixed = (
        "; a CPU torch beside a torchvision built for CUDA does this"
        if torch.version.cuda is None and "+cpu" not in installed
        else ""
    )
    failure = _import_failure("torchvision")
    if not failure:
        yield ok("torchvision", f"{installed}, not needed")
        return
    yield problem(
        "torchvision",
        f"{installed} cannot be imported beside torch {torch.__version__} ({failure}){mixed}, and "
        "transformers imports it",
        "remove it (pip uninstall torchvision; it is not needed), or install both from the same index",
    )


def _import_failure(package: str) -> str:
    """Why ``import package`` fails in a fresh process; nothing if it works."""
    command = [sys.executable, "-c", f"import {package}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    if not done.returncode:
        return ""
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return lines[-1][:200]


def _transformers() -> Finding:
    installed = _version("transformers")
    oldest, newest = (".".join(map(str, bound)) for bound in _TRANSFORMERS)
    remedy = f"pip install 'transformers>={oldest},<{newest.split('.')[0]}'"
    if not installed:
        return problem("transformers", "not installed", remedy)
    numbers = tuple(int(part) for part in re.findall(r"\d+", installed)[:2])
    if not _TRANSFORMERS[0] <= numbers < _TRANSFORMERS[1]:
        return problem("transformers", f"{installed}, and {oldest} to below {newest} are known", remedy)
    return ok("transformers", installed)


def _package(package: str, use: str) -> Finding:
    name = _DISTRIBUTIONS.get(package, package)
    installed = _version(name)
    if not installed or util.find_spec(package) is None:
        return problem(name, f"not installed, and needed to read {use}", f"pip install {name}")
    return ok(name, installed)


def _protobuf() -> Finding:
    installed = _version("protobuf")
    if installed:
        return ok("protobuf", installed)
    return note(
        "protobuf",
        "not installed; llavar does not need it, but transformers does for a bare tokenizer.model, and then "
        "asks for tiktoken by mistake",
        "pip install protobuf, if transformers is to read such folders itself",
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _disk(place: Path) -> Finding:
    free = shutil.disk_usage(place).free
    text = f"{free / 2**30:.1f} GiB free for {place.absolute()}"
    if free < _LITTLE_DISK:
        return note("disk", text, "make room before converting or training there")
    return ok("disk", text)


def free_memory() -> int | None:
    """Bytes that a program may still take without swapping; None where the system does not say."""
    known = [size for size in (_available(), _left_to_container()) if size is not None]
    return min(known, default=None)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _left_to_container() -> int | None:
    """What the control group of this process may still take; None where it has no limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
    except (OSError, ValueError):  # "max" is no number and means no limit
        return None
    return max(0, limit - used)


def _memory() -> Finding:
    free = free_memory()
    if free is None:
        return note("memory", "this system does not say how much is free")
    return ok("memory", f"{free / 2**30:.1f} GiB free, {os.cpu_count()} processors")


def room(nbytes: int) -> Iterator[Finding]:
    """Whether a checkpoint, widened to fp32 as ``llavar ask`` does, goes into memory."""
    free = free_memory()
    if not nbytes or free is None:
        return
    text = f"the model takes about {nbytes / 2**30:.1f} GiB in fp32, and {free / 2**30:.1f} GiB are free"
    if nbytes > free:
        yield note("memory", text, "ask it with --quantize int8 or nf4, or on another machine")
    else:
        yield ok("memory", text)
