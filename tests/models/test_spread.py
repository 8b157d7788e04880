"""Which rows of a tensor a process holds, as torch divides them."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor

from llavar.models.spread import gathered, is_spread, local, made_like, part_of, rows_of


@pytest.fixture
def mesh(request: pytest.FixtureRequest) -> Generator[Any]:
    """A row of processes of which only one is there: nothing can be sent."""
    rank, size = request.param
    importlib.import_module("torch.testing._internal.distributed.fake_pg")
    distributed: Any = torch.distributed
    store: Any = importlib.import_module("torch.testing._internal.distributed.fake_pg").FakeStore()
    distributed.init_process_group("fake", rank=rank, world_size=size, store=store)
    try:
        yield importlib.import_module("torch.distributed.device_mesh").init_device_mesh("cpu", (size,))
    finally:
        distributed.destroy_process_group()


def spread_over(mesh: Any, rows: int) -> Tensor:
    module: Any = importlib.import_module("torch.distributed.tensor")
    return module.distribute_tensor(
        torch.arange(rows * 2.0).view(rows, 2), mesh, [module.Shard(0)], src_data_rank=None
    )


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 16])
@pytest.mark.parametrize("mesh", [(rank, 5) for rank in range(5)], indirect=True)
def test_rows_are_those_that_torch_gives(rows: int, mesh: Any):
    whole = torch.arange(rows * 2.0).view(rows, 2)
    tensor = spread_over(mesh, rows)
    assert is_spread(tensor)
    chunks = [*whole.chunk(5), *[whole[:0]] * 5]
    own = chunks[mesh.get_local_rank()]
    assert torch.equal(local(tensor), own)
    assert torch.equal(part_of(whole, tensor), own)
    found = rows_of(tensor)
    assert found.stop - found.start == len(own)
    again = made_like(tensor, own.clone())
    assert torch.equal(local(again), own)
    assert (again.shape, again.stride()) == (tensor.shape, tensor.stride())


def test_what_is_whole_stays_whole():
    tensor = torch.arange(6.0).view(3, 2).requires_grad_()
    assert not is_spread(tensor)
    assert local(tensor) is tensor
    assert part_of(tensor, tensor) is tensor
    assert made_like(tensor, tensor) is tensor
    assert torch.equal(gathered(tensor), tensor)
    assert not gathered(tensor).requires_grad
