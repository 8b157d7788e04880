"""Two processes, each with half of the decoder, give what one gives; they stop, are killed and go on.

They run as two machines of one process each: in two network namespaces where these can be made, else side by
side. Starting Python twice takes seconds, so all that two processes do is in two starts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image

from llavar.models import _hf as hf
from llavar.models import folder as folders
from llavar.models.shape import LlavaShape, TextShape, VisionShape
from llavar.models.tokenizer import nano_tokenizer
from llavar.train import checkpoint, home, job, metrics, shards
from llavar.train.config import PartConfig, Precision, Shard, StageConfig
from llavar.train.job import Job, record
from llavar.train.llava import DECODER, PROJECTOR
from llavar.train.world import World

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
ADDRESSES = ("10.77.0.1", "10.77.0.2")

Found = list[dict[str, Any]]


def script(name: str) -> ModuleType:
    sys.path.insert(0, str(HERE))
    try:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(HERE))


# --- two machines -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What goes before a command so that it runs there, and the first machine's address from there."""

    before: tuple[str, ...] = ()
    interface: str = ""
    address: str = "127.0.0.1"


@contextlib.contextmanager
def machines() -> Generator[tuple[Machine, Machine]]:
    """Two network namespaces with a wire between them; this machine twice where they cannot be made."""
    names = [f"llavar{os.getpid()}{end}" for end in "ab"]
    first = second = Machine()
    try:
        for name in names:
            _ip("netns", "add", name)
        a, b = names
        _ip("link", "add", "eth77", "netns", a, "type", "veth", "peer", "name", "eth77", "netns", b)
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth77")
            for device in ("lo", "eth77"):
                _ip("-n", name, "link", "set", device, "up")
        first, second = (
            Machine(before=("ip", "netns", "exec", name), interface="eth77", address=ADDRESSES[0])
            for name in names
        )
    except (OSError, subprocess.SubprocessError):
        pass
    try:
        yield first, second
    finally:
        for name in names:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def started(out: Path, what: str, *, launcher: bool) -> list[int]:
    """Exit codes of both machines. ``launcher``: as users start them, by torchrun on each; else by hand."""
    port = str(free_port())
    command = [str(HERE / "sharded_processes.py"), str(out), what]
    with machines() as pair, contextlib.ExitStack() as stack:
        running: list[subprocess.Popen[str]] = []
        for rank, machine in enumerate(pair):
            environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
            if machine.interface:
                environment["GLOO_SOCKET_IFNAME"] = machine.interface
            if launcher:
                flags = ["--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1"]
                flags += ["--master_addr", machine.address, "--master_port", port]
                words = ["-m", "torch.distributed.run", *flags, *command]
            else:
                environment |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
                environment |= {"MASTER_ADDR": machine.address, "MASTER_PORT": port}
                words = command
            log = stack.enter_context((out / f"{what}{rank}.log").open("w"))
            running.append(
                subprocess.Popen(
                    [*machine.before, sys.executable, *words],
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        try:
            return [process.wait(timeout=300) for process in running]
        finally:
            for process in running:
                process.kill()


def results(out: Path, what: str) -> Found:
    return [json.loads((out / what / f"{rank}.json").read_text()) for rank in range(2)]


# --- what they start from ---------------------------------------------------------------------------------


def tiny(folder: Path) -> Path:
    """A whole Llava folder in fp32."""
    tokens = nano_tokenizer()
    shape = LlavaShape(
        vision=VisionShape(image_size=16, patch_size=8, hidden=32, layers=2, heads=2, mlp=48),
        text=TextShape(
            vocab=tokens.vocab_size, hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, max_positions=512
        ),
        image_token_id=tokens.image_patch_id,
        vision_feature_layer=-1,
    )
    hf.save_llava(hf.build_llava(shape, seed=2), folder)
    tokens.save(folder)
    return folder


def written_job(out: Path, model: Path) -> Job:
    """A job on nine rows with pictures and one without, which looks at the model meanwhile."""
    pictures = out / "pictures"
    pictures.mkdir()
    rows: list[dict[str, object]] = []
    for number in range(10):
        Image.new("RGB", (20, 16), (20 * number, 0, 0)).save(pictures / f"{number}.png")
        talk = [
            {"from": "human", "value": "Read." if number == 4 else "<image>\nRead."},
            {"from": "gpt", "value": f"NUMBER {number}"},
        ]
        shown = {} if number == 4 else {"image": f"{number}.png"}
        rows.append({"id": str(number), "conversations": talk} | shown)
    (out / "rows.json").write_text(json.dumps(rows))
    (out / "held.json").write_text(json.dumps(rows[3:6]))
    stage = StageConfig(
        parts={PROJECTOR: PartConfig(lr=2e-3), DECODER: PartConfig(lr=1e-3)},
        batch=4,
        micro_batch=2,
        max_length=128,
        precision=Precision.FP32,
        shard=Shard.FULL,
        log_every=1,
        save_every=2,
    )
    return Job(
        stage=stage,
        model=str(model),
        data=(str(out / "rows.json"),),
        images=str(pictures),
        validate=(str(out / "held.json"),),
        validate_every=2,
        watch_every=2,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What both processes found in both starts, where, and what one process finds."""

    out: Path
    first: Found
    second: Found
    codes: tuple[list[int], list[int]]
    alone: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    out = tmp_path_factory.mktemp("sharded")
    processes = script("sharded_processes")
    model = tiny(out / "tiny")
    (out / "job").mkdir()
    record(asked := written_job(out, model), out / "job")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    codes = started(out, "first", launcher=True)
    shutil.copytree(out, kept := out.with_name(out.name + "-kept"), ignore=shutil.ignore_patterns("job"))
    first = _collected(out)
    names = list(processes.SETTINGS)
    alone = {name: processes.outcome(name, model, out / f"one {name}", World()) for name in names}

    def interrupt(step: int) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        processes.outcome("both", model, out / "alone", World(), on_save=interrupt)
    again = started(out, "second", launcher=False)
    second = _collected(out)

    said: list[str] = []
    job.run(asked, out / "job one", say=said.append, watcher=processes.asking)
    alone["job"] = {"said": said}
    shutil.rmtree(kept / "both" / "checkpoints" / "step-00000006")
    resumed: list[tuple[int, int]] = []
    alone["fewer"] = processes.outcome(
        "both", model, kept / "both", World(), on_resume=lambda at: resumed.append((at.step, at.processes))
    )
    alone["fewer"]["resumed"] = resumed
    torch.set_num_threads(threads)
    return Outcomes(out=out, first=first, second=second, codes=(codes, again), alone=alone)


def _collected(out: Path) -> Found:
    logs = "".join(path.read_text()[-1500:] for path in sorted(out.glob("*.log")))
    assert all((out / f"{rank}.json").is_file() for rank in range(2)), logs
    found = [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]
    for rank in range(2):
        (out / f"{rank}.json").unlink()
    return found


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "weights.pt", weights_only=True)


def close(one: Path, other: Path, tolerance: float) -> None:
    before, after = weights(one), weights(other)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=tolerance, msg=name)


# --- the same numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["both", "projector", "selective", "hybrid"])
def test_two_processes_give_the_losses_and_the_weights_of_one(name: str, pair: Outcomes):
    first, second = (found[name] for found in pair.first)
    assert first["ticks"] == second["ticks"]
    assert [step for step, *_ in first["ticks"]] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(first["ticks"], pair.alone[name]["ticks"], strict=True):
        assert one == pytest.approx(list(other), rel=2e-5)
    close(pair.out / f"one {name}", pair.out / name, 2e-6)


def test_processes_with_text_alone_or_with_nothing_keep_up_with_the_others(pair: Outcomes):
    met = {tuple(pair.first[rank]["both"]["rows"][step][0] for rank in range(2)) for step in range(3)}
    assert ("text", "pictures") in met
    assert any("nothing" in both for both in met)
    # Nothing of what is trained is reached from text alone in stage 1: no gradient, and no hanging either.
    still = [[step for step, _, norm in found["projector"]["ticks"] if norm == 0] for found in pair.first]
    assert still[0] == [step for step, _, norm in pair.alone["projector"]["ticks"] if norm == 0]
    assert still[0]


def test_machines_that_hold_the_same_hold_all_of_it_and_checkpoints_have_it_once(pair: Outcomes):
    for found in pair.first:
        assert found["hybrid"]["held"]["here"] == found["hybrid"]["held"]["all"]
    sizes = [
        sum(path.stat().st_size for path in (pair.out / name / "checkpoints" / "step-00000006").iterdir())
        for name in ("hybrid", "both")
    ]
    assert sizes[0] < 1.1 * sizes[1]


def test_in_reduced_precision_they_differ_by_its_round_off(pair: Outcomes):
    first, second = (found["bf16"] for found in pair.first)
    assert first["ticks"] == second["ticks"]
    for one, other in zip(first["ticks"], pair.alone["bf16"]["ticks"], strict=True):
        assert one[1] == pytest.approx(other[1], rel=5e-3)
    # What is trained is fp32 whatever it is computed in: bf16 could not hold these steps.
    saved = {name: it for name, it in weights(pair.out / "bf16").items() if "vision_tower" not in name}
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in saved.values())


def test_a_process_holds_its_half_and_reads_no_more(pair: Outcomes):
    for found in pair.first:
        held = found["both"]["held"]
        assert held["here"] <= 0.51 * held["all"]
        largest = 4 * nano_tokenizer().vocab_size * 64
        assert found["counted"]["largest"] <= 0.51 * largest
        assert found["counted"]["most"] <= 2 * found["counted"]["largest"]
    assert pair.alone["both"]["held"]["here"] == pair.alone["both"]["held"]["all"]


def test_the_machines_are_two_where_the_system_lets_them(pair: Outcomes):
    seen = [tuple(found["address"]) for found in pair.first]
    if seen == [(), ()]:
        pytest.skip("no network namespaces here: both processes ran side by side on one")
    assert seen == [(ADDRESSES[0],), (ADDRESSES[1],)]


def test_no_thread_of_the_process_group_outlives_it_though_a_model_was_divided(pair: Outcomes):
    for found in pair.second:
        assert [name for name in found["threads"] if "gloo" in name] == []


# --- stopping and going on --------------------------------------------------------------------------------


def test_one_that_is_asked_to_stop_stops_both_and_they_go_on_bit_identically(pair: Outcomes):
    for found in pair.first:
        assert found["stopped"]["resumed_at"] == 3
        assert found["stopped"]["ticks"] == found["both"]["ticks"]
    assert same(pair.out / "stopped", pair.out / "both")


def test_after_a_kill_of_one_they_go_on_bit_identically(pair: Outcomes):
    codes, again = pair.codes
    assert all(codes)
    assert again == [0, 0]
    assert "process 0 of 2 lost the others" in pair.first[0]["killed"]
    assert "goes on from the last checkpoint" in pair.first[0]["killed"]
    for found in pair.second:
        assert found["resumed"]["resumed_at"] == 4
        assert found["resumed"]["ticks"] == pair.first[0]["both"]["ticks"]
    assert same(pair.out / "killed", pair.out / "both")


def same(one: Path, other: Path) -> bool:
    before, after = weights(one), weights(other)
    return all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_fewer_processes_go_on_at_the_same_row(pair: Outcomes):
    fewer = pair.alone["fewer"]
    assert (fewer["resumed_at"], fewer["resumed"]) == (4, [(4, 2)])
    for one, other in zip(fewer["ticks"], pair.alone["both"]["ticks"], strict=True):
        assert one == pytest.approx(list(other), rel=2e-5)


def test_more_processes_go_on_at_the_same_row(pair: Outcomes):
    for found in pair.second:
        assert (found["more"]["resumed_at"], found["more"]["resumed"]) == (2, [[2, 1]])
        for one, other in zip(found["more"]["ticks"], pair.alone["both"]["ticks"], strict=True):
            assert one == pytest.approx(list(other), rel=2e-5)
    close(pair.out / "one both", pair.out / "alone", 2e-6)


def test_an_error_of_one_while_others_wait_for_its_weights_reaches_them(pair: Outcomes):
    first, second = (found["failed"] for found in pair.second)
    assert second == {"kind": "DataError", "sentence": "row 'x' is odd; mend it"}
    assert (
        first
        == {
            "kind": "LlavarError",
            "sentence": "process 1 of 2 ended the run: DataError: row 'x' is odd; mend it",
        }
        or first["sentence"] == "process 1 of 2 ended the run: row 'x' is odd; mend it"
    )
    # What was not saved when it happened cannot be any more: a part of it is gone.
    saved = checkpoint.newest(pair.out / "failed" / "checkpoints")
    assert saved is not None
    assert saved.step == 2


# --- a whole job ------------------------------------------------------------------------------------------


def test_a_job_leaves_what_a_process_alone_leaves(pair: Outcomes):
    names = ("job one", "job")
    one, two = (folders.read_tensors(folders.open_weights(pair.out / name / "model")) for name in names)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert two[name].dtype == tensor.dtype
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=2e-6, msg=name)
    assert sorted(p.name for p in (pair.out / "job" / "model").iterdir()) == sorted(
        p.name for p in (pair.out / "job one" / "model").iterdir()
    )
    hf.load_llava(pair.out / "job" / "model")


def test_a_job_is_looked_at_by_all_and_logged_by_the_first(pair: Outcomes):
    looks = [
        [json.loads(line) for line in (pair.out / name / "validation.jsonl").read_text().splitlines()]
        for name in ("job", "job one")
    ]
    assert [entry["step"] for entry in looks[0]] == [0, 2, 3]
    for ours, alone in zip(*looks, strict=True):
        assert ours["loss"] == pytest.approx(alone["loss"], rel=2e-5)
        assert ours["score"] == alone["score"]
    assert [tick.step for tick in metrics.read(pair.out / "job" / home.LOG)] == [1, 2, 3]
    assert pair.first[1]["job"]["said"] == []


def test_a_checkpoint_is_a_folder_with_a_part_of_each(pair: Outcomes):
    folder = pair.out / "both" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000004", "step-00000006"]
    names = {path.name for path in (folder / "step-00000006").iterdir()}
    assert names == {".metadata", "__0_0.distcp", "__1_0.distcp", "moment.json"}
    found = checkpoint.newest(folder)
    assert isinstance(found, shards.Shards)
    assert (found.step, found.processes) == (6, 2)


def test_a_model_is_written_tensor_by_tensor(pair: Outcomes):
    """Of what was gathered, a file's worth of tensors is never held: a few wait for the disk."""
    for found in pair.first:
        total = found["both"]["held"]["all"]
        assert 0 < found["job"]["largest"] < 0.2 * total
        assert found["job"]["most"] <= 5 * found["job"]["largest"]
        assert found["job"]["most"] < 0.6 * total
