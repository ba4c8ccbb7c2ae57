"""What planning costs: passes, and processor time beside that of one forward and one backward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn

from idealgroups.planner import Survey
from idealgroups.progress import Steps
from idealgroups.results import Plan
from idealgroups.sandbox.calling import call_model, copy_inputs
from idealgroups.theory.strategies import Strategy


@dataclass
class Cost:
    """What planning took. ``seconds``: of processor time, which other work on the machine does not count towards.

    ``shared``: the seconds of the first two passes, which every strategy that measures needs, and what comes before.
    ``survey``: what planned; None if it was not kept.
    """

    passes: int = 0
    seconds: float = 0.0
    shared: float = 0.0
    survey: Survey | None = None


@contextmanager
def planning_cost(*, keep: bool = False) -> Iterator[Cost]:
    """Count the passes of the first plan that is made inside, and the processor time from the start to its end.

    Args:
        keep: leave its survey open, for more plans; the caller closes it.
    """
    plan, close, cost, started = Survey.plan, Survey.close, Cost(), time.process_time()

    def counted(survey: Survey, strategy: str | Strategy = "isometric", *, advance: Steps = lambda: None) -> Plan:
        if cost.passes:
            return plan(survey, strategy, advance=advance)

        def count() -> None:
            cost.passes += 1
            if cost.passes == 2:
                cost.shared = time.process_time() - started
            advance()

        made = plan(survey, strategy, advance=count)
        cost.seconds = time.process_time() - started
        if keep:
            cost.survey = survey
        return made

    def closed(survey: Survey) -> None:
        if survey is not cost.survey:
            close(survey)

    with patch.object(Survey, "plan", counted), patch.object(Survey, "close", closed):
        yield cost


def step_seconds(model: nn.Module, inputs: Any, loss: Callable[[Any], Tensor]) -> float:
    """Processor time of one forward and one backward pass of the network as it is; ``model`` is changed by it."""
    model.zero_grad(set_to_none=True)
    given = copy_inputs(inputs)
    started = time.process_time()
    loss(call_model(model, given)).backward()  # type: ignore[no-untyped-call]
    return time.process_time() - started


def pass_seconds(model: nn.Module, inputs: Any, loss: Callable[[Any], Tensor]) -> float:
    """Return the best of up to three of :func:`step_seconds`."""
    taken = [step_seconds(model, inputs, loss)]
    while len(taken) < 3 and sum(taken) < 1.5:
        taken.append(step_seconds(model, inputs, loss))
    return min(taken)
