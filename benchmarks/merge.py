"""Memory and time of a delta merge with the shapes of a 13B model: python benchmarks/merge.py --work DIR

Makes a LLaMA-13B base and a LLaVA delta of real width (5120 x 13824, vocabularies 32000 and 32003), random
float16 values and fewer layers, as ``.bin`` shards, and merges them in a process of its own. Taken each time:

* ``merge``: seconds inside ``llavar.models.delta.apply``;
* ``merge_checksums``: the same with sha256 of what is written;
* ``process``: seconds of the whole process of ``merge``, with starting Python and importing torch;
* ``peak_anonymous``: the highest RssAnon of the merging processes, asked every 5 ms;
* ``copy``: seconds to move the same bytes without looking at them, in a process of its own: every byte of the
  base read into a buffer, every shard of the delta copied with ``shutil.copyfile``. So as much is read (base
  and delta) and as much is written (what the merge writes has the delta's size).

They take turns. ``cold``: the inputs' pages are given up before each (posix_fadvise); ``warm``: they are in
memory as far as they fit. The dirty pages of the run before are flushed first in all cases; the flush at the
end of a run is not timed in any. Medians and all values go to benchmarks/results/merge.json. Do not run
anything else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WIDTH, MLP, VOCABULARY, ADDED, TOWER = 5120, 13824, 32000, 3, 1024
LAYERS_OF_13B = 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "merge.json")
    parser.add_argument("--note", default="", help="kept with the results, such as what else was running")
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child-checksums", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child-copy", nargs=3, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child or arguments.child_checksums or arguments.child_copy:
        if arguments.child_copy:
            print(_copy(*arguments.child_copy))
        else:
            folders = arguments.child or arguments.child_checksums
            print(_merge(*folders, checksums=arguments.child is None))
        return
    _check_room(arguments.work, arguments.layers)
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="merge-") as folder:
        document = _measure(Path(folder), arguments.layers, arguments.repeat)
    document = {"machine": _machine(), "note": arguments.note} | document
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=1))


def _check_room(work: Path, layers: int) -> None:
    model = 2 * (layers * (4 * WIDTH**2 + 3 * WIDTH * MLP) + 2 * VOCABULARY * WIDTH)
    work.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(work).free
    if 3.2 * model > free:
        sys.exit(f"{layers} layers need {3.2 * model / 1e9:.0f} GB in {work}; {free / 1e9:.0f} GB are free")


def _measure(folder: Path, layers: int, repeat: int) -> dict[str, object]:
    base, delta, out = folder / "base", folder / "delta", folder / "out"
    _make(base, layers, VOCABULARY, 0.02, seed=0)
    _make(delta, layers, VOCABULARY + ADDED, 0.001, seed=1)
    document: dict[str, object] = {
        "layers": layers,
        "layers_of_13b": LAYERS_OF_13B,
        "bytes": {"base": _size(base), "delta": _size(delta)},
    }
    for cache in ("warm", "cold"):
        rows: dict[str, list[float]] = {}
        for turn in range(repeat + (cache == "warm")):  # the first warm one fills the memory
            taken = _turn(base, delta, out, cold=cache == "cold")
            if cache == "cold" or turn:
                for name, value in taken.items():
                    rows.setdefault(name, []).append(round(value, 3))
        medians = {name: statistics.median(values) for name, values in rows.items()}
        document[cache] = {
            "merge_over_copy": round(medians["merge"] / medians["copy"], 3),
            "merge_checksums_over_copy": round(medians["merge_checksums"] / medians["copy"], 3),
            "process_over_copy": round(medians["process"] / medians["copy"], 3),
            "peak_anonymous_bytes": int(max(rows["peak_anonymous"])),
            "medians": medians,
            "all": rows,
        }
    return document


def _turn(base: Path, delta: Path, out: Path, *, cold: bool) -> dict[str, float]:
    found: dict[str, tuple[float, float, float]] = {}
    for kind in ("--child-copy", "--child", "--child-checksums"):
        _settle(base, delta, cold=cold)
        found[kind] = _child(kind, base, delta, out)
        shutil.rmtree(out)
    merge, process, peak = found["--child"]
    checked, _, other_peak = found["--child-checksums"]
    return {
        "copy": found["--child-copy"][0],
        "merge": merge,
        "merge_checksums": checked,
        "process": process,
        "peak_anonymous": max(peak, other_peak),
    }


def _child(kind: str, base: Path, delta: Path, out: Path) -> tuple[float, float, float]:
    """Seconds that the child says, seconds of the whole process, its highest anonymous memory in bytes."""
    started = time.perf_counter()
    command = [sys.executable, __file__, kind, str(base), str(delta), str(out)]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, _anonymous(process.pid))
            time.sleep(0.005)
        taken = time.perf_counter() - started
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        sys.exit(f"{kind} ended with {process.returncode}")
    return float(said), taken, float(peak)


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def _settle(*folders: Path, cold: bool) -> None:
    os.sync()
    for folder in folders if cold else ():
        for path in folder.iterdir():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def _merge(base: Path, delta: Path, out: Path, *, checksums: bool) -> float:
    from llavar.models.delta import apply

    started = time.perf_counter()
    apply(base, delta, out, checksums=checksums)
    return time.perf_counter() - started


def _copy(base: Path, delta: Path, out: Path) -> float:
    started = time.perf_counter()
    out.mkdir()
    buffer = memoryview(bytearray(8 << 20))
    for path in sorted(base.iterdir()):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    for path in sorted(delta.iterdir()):
        shutil.copyfile(path, out / path.name)
    return time.perf_counter() - started


# A model that has nothing but its shapes.


def _make(folder: Path, layers: int, vocabulary: int, scale: float, *, seed: int) -> None:
    import torch

    folder.mkdir()
    random = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random).mul_(scale).half()

    shards = [{"model.embed_tokens.weight": (vocabulary, WIDTH)}]
    shards += [_layer(index) for index in range(layers)]
    shards += [{"model.norm.weight": (WIDTH,), "lm_head.weight": (vocabulary, WIDTH)}]
    if vocabulary > VOCABULARY:
        shards[-1] |= {"model.mm_projector.weight": (WIDTH, TOWER), "model.mm_projector.bias": (WIDTH,)}
    table: dict[str, str] = {}
    for number, shapes in enumerate(shards, 1):
        name = f"pytorch_model-{number:05d}-of-{len(shards):05d}.bin"
        torch.save({key: values(*shape) for key, shape in shapes.items()}, folder / name)
        table |= dict.fromkeys(shapes, name)
    index = {"metadata": {}, "weight_map": table}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    llava = vocabulary > VOCABULARY
    config = {"model_type": "llava" if llava else "llama", "rms_norm_eps": 1e-6, "vocab_size": vocabulary}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _layer(index: int) -> dict[str, tuple[int, ...]]:
    attention = {f"self_attn.{name}_proj.weight": (WIDTH, WIDTH) for name in "qkvo"}
    mlp = {"gate": (MLP, WIDTH), "up": (MLP, WIDTH), "down": (WIDTH, MLP)}
    shapes = attention | {f"mlp.{name}_proj.weight": shape for name, shape in mlp.items()}
    shapes |= {"input_layernorm.weight": (WIDTH,), "post_attention_layernorm.weight": (WIDTH,)}
    return {f"model.layers.{index}.{name}": shape for name, shape in shapes.items()}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = f"{os.cpu_count()} cores, {memory:.0f} GiB"
    return f"{platform.machine()}, {cores}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
