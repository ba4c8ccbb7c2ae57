"""Two processes with their own samples get one plan, whose weights then stay in step."""

from __future__ import annotations

import copy
import multiprocessing
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import idealgroups as ig
import networks
from idealgroups import processes


def _run(rank: int, job: Callable[[int, Path], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    try:
        outcome = job(rank, folder)
    except Exception:
        outcome = traceback.format_exc()
    torch.save(outcome, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


multiprocessing.set_forkserver_preload(["idealgroups.api", "torch.distributed.fsdp"])  # no import for every process


def in_two_processes(job: Callable[[int, Path], Any], folder: Path) -> list[Any]:
    mp.start_processes(_run, (job, folder), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def batch(rank: int) -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(rank)) * (1 + rank)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return networks.plain(width=32, depth=3)


def data_parallel(rank: int, folder: Path) -> Any:
    plan = ig.plan(network(rank), batch(rank), progress=False)
    model, converted_with = ig.convert(network(rank), batch(rank), progress=False)
    wrapped = nn.parallel.DistributedDataParallel(model)
    wrapped(batch(rank)).square().mean().backward()
    torch.optim.SGD(wrapped.parameters(), 0.1).step()
    torch.save(wrapped.state_dict(), folder / f"ddp{rank}.pt")
    fresh = ig.restore(network(5), folder / f"ddp{rank}.pt")
    torch.testing.assert_close(fresh(batch(0)), model(batch(0)))
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    return {"plan": plan.num_groups, "convert": converted_with.num_groups, "now": ig.groups(model), "weights": weights}


def fully_sharded(rank: int, folder: Path) -> Any:
    from torch.distributed.fsdp import fully_shard

    model, plan = ig.convert(network(0), batch(rank), progress=False)
    whole = copy.deepcopy(model)
    fully_shard(model, mesh=dist.init_device_mesh("cpu", (2,)))
    torch.testing.assert_close(model(batch(rank)), whole(batch(rank)))
    model(batch(rank)).square().mean().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    state = model.state_dict()
    groups = {place: local["idealgroups"] for place, local in state._metadata.items() if "idealgroups" in local}
    full = {name: tensor.full_tensor() for name, tensor in state.items()}
    with pytest.raises(ig.IdealGroupsError, match="sharded by fully_shard"):
        ig.restore(model, whole.state_dict())
    return {"plan": plan.num_groups, "groups": groups[""], "weights": full["0.0.weight"]}


def trained(rank: int, folder: Path) -> Any:
    model = network(0)
    model(batch(0))  # moves the running statistics
    new, plan = ig.convert(model, batch(rank), progress=False)
    return {"plan": plan.num_groups, "groups": ig.groups(new), "state": dict(new.state_dict())}


def faults(rank: int, folder: Path) -> Any:
    processes.ASKING = processes.PLANNING = timedelta(seconds=3)
    return [
        what_it_says(lambda: ig.plan(networks.plain(width=16 + 16 * rank), batch(rank), progress=False)),
        what_it_says(lambda: ig.convert(network(0), torch.zeros(4, 3, 8, 8), progress=False)),
        what_it_says(lambda: rank == 1 and ig.plan(network(0), batch(0), progress=False)),
    ]


def what_it_says(call: Callable[[], Any]) -> str:
    try:
        call()
    except ig.IdealGroupsError as error:
        return str(error)
    return ""


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("job", [data_parallel, fully_sharded, trained])
def test_all_processes_get_the_plan_of_process_0(job: Callable[[int, Path], Any], tmp_path: Path) -> None:
    if job is fully_sharded and not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip("this torch cannot shard on a processor")
    first, second = in_two_processes(job, tmp_path)
    assert isinstance(first, dict), first
    assert isinstance(second, dict), second
    assert same(first, second)
    assert set(first["plan"]) == {"0.1", "1.1", "2.1"}


def test_calls_that_do_not_match_are_an_error_and_no_hang(tmp_path: Path) -> None:
    first, second = in_two_processes(faults, tmp_path)
    assert "process 0 and process 1 plan for different networks" in first[0]
    assert first[0] == second[0]
    assert "all zero" in first[1]
    assert second[1].startswith("process 0 could not plan: ")
    assert first[2] == ""
    assert "process 1 waits for a plan that process 0 does not make" in second[2]


def test_without_a_process_group_nothing_is_shared() -> None:
    model = network(0)
    assert ig.plan(model, batch(0)).num_groups.keys() == {"0.1", "1.1", "2.1"}
