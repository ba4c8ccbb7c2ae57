"""One plan for all processes of a distributed training: process 0 makes it, and the others get it.

Each process has its own samples, so each would measure, and get, other numbers of groups, and nothing in
``torch.distributed`` would notice. The plan goes through the store of the process group and not through a collective.
So it works with every backend, and cannot be mistaken for another message of the training.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from .errors import IdealGroupsError

Result = TypeVar("Result")

PLANNING = timedelta(minutes=30)
"""How long a process waits for process 0 to plan: as long as torch waits in a collective."""

ASKING = timedelta(minutes=5)
"""How long process 0 waits for the others to ask for its plan."""

_calls = itertools.count()


def shared(
    make: Callable[[], Result], tell: Callable[[Result], Any], follow: Callable[[Any], Result], network: str
) -> Result:
    """Let process 0 ``make`` a result, and the others ``follow`` it; without process group, just make it.

    Args:
        make: returns the result.
        tell: from the result to what the others need for theirs: tensors and plain data.
        follow: from that to the result.
        network: the fingerprint of the network, which must be the same in all processes.

    Raises:
        IdealGroupsError: process 0 failed, or the processes do not call this for the same networks in the same order.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return make()
    distributed: Any = dist  # its stores are not annotated
    store = distributed.PrefixStore(f"idealgroups/{next(_calls)}", distributed.distributed_c10d._get_default_store())
    others = range(1, dist.get_world_size())
    if dist.get_rank() == 0:
        try:
            result = make()
            message = tell(result)
        except BaseException as error:
            store.set("plan", _dump({"network": network, "error": str(error) or type(error).__name__}))
            raise
        store.set("plan", _dump({"network": network, "message": message}))
        answers = [f"answer/{rank}" for rank in others]
        _wait(store, answers, ASKING, "process 0 has made a plan that another process did not ask for")
        refused = [answer for rank in others if (answer := store.get(f"answer/{rank}").decode())]
        if refused:
            raise IdealGroupsError(refused[0])
        return result
    _wait(store, ["plan"], PLANNING, f"process {dist.get_rank()} waits for a plan that process 0 does not make")
    got = torch.load(io.BytesIO(store.get("plan")), weights_only=True)
    refusal = ""
    if got["network"] != network:
        refusal = f"process 0 and process {dist.get_rank()} plan for different networks{_ADVICE}"
    store.set(f"answer/{dist.get_rank()}", refusal)
    if refusal:
        raise IdealGroupsError(refusal)
    if "error" in got:
        raise IdealGroupsError(f"process 0 could not plan: {got['error']}")
    return follow(got["message"])


_ADVICE = "; call plan and convert in every process, for the same networks in the same order."


def _wait(store: Any, keys: list[str], time: timedelta, what: str) -> None:
    try:
        store.wait(keys, time)
    except Exception:  # DistStoreError, RuntimeError: which one depends on the kind of store
        raise IdealGroupsError(f"{what} ({time} have passed){_ADVICE}") from None


def _dump(message: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(message, buffer)
    return buffer.getvalue()
