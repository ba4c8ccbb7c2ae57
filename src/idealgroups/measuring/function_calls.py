"""What a model does by calling functions instead of modules: normalization is noted, dropout is switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import internal
from .trace import Trace

_NORMS = ("group_norm", "batch_norm", "instance_norm")
_DROPOUTS = {
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), True),
    **dict.fromkeys(("alpha_dropout", "feature_alpha_dropout"), False),
}
"""{function of F: its default of ``training``, the third argument}."""
_ATEN_DROPOUTS = ("dropout", "feature_dropout")

Functions = dict[Callable[..., Any], Any]


def _norms() -> Functions:
    """{function: its name}, the last of them what the graph of torch.export calls."""
    homes = (("F", F), ("torch", torch))
    found = {getattr(home, name): f"{letters}.{name}" for letters, home in homes for name in _NORMS}
    return found | {getattr(torch.ops.aten, name).default: f"aten.{name}" for name in _NORMS}


def _dropouts() -> Functions:
    """{function: its default of ``training``}."""
    found = {getattr(F, name): training for name, training in _DROPOUTS.items()}
    return found | {getattr(torch.ops.aten, name).default: True for name in _ATEN_DROPOUTS}


_FIRST_NORMS, _FIRST_DROPOUTS = _norms(), _dropouts()
"""As they are before anybody (a profiler, a library of mixed precision) puts functions around them."""


def advice(function: str) -> str:
    """Return what to say of a module that calls ``function`` to normalize.

    >>> advice("F.group_norm")
    "calls F.group_norm itself; make it a module, for a function's groups cannot be replaced"
    """
    if function.startswith("aten."):
        return f"calls {function}, as exported graphs do; plan and convert the network before torch.export"
    return f"calls {function} itself; make it a module, for a function's groups cannot be replaced"


class unseen(internal):  # noqa: N801
    """Run code of our own on ``x`` past every mode, and otherwise as :class:`~idealgroups.errors.internal`.

    Tensors of a class of their own keep what the class does, and so do the modes there.
    """

    def __init__(self, doing: str, x: Any = None) -> None:
        super().__init__(doing)
        self._modes = torch._C.DisableTorchFunction() if x is None or type(x) is Tensor else nullcontext()

    def __enter__(self) -> None:
        self._modes.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._modes.__exit__(kind, error, trace)
        super().__exit__(kind, error, trace)


class NoDropout(TorchFunctionMode):
    """Inside this mode functional dropout returns its input; ``used`` tells whether any would have done otherwise.

    A function that somebody has put in the place of dropout by now is dropout too, and so with norms below. A mode
    sees every operation and every look at a tensor's attributes, so a pass that needs none goes without it.

    >>> with NoDropout():
    ...     F.dropout(torch.ones(3), p=0.9, training=True)
    tensor([1., 1., 1.])
    """

    def __init__(self) -> None:
        super().__init__()
        self.used = False
        self._dropouts = _FIRST_DROPOUTS | _dropouts()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        return self._without(func, args, kwargs) if func in self._dropouts else func(*args, **kwargs)

    def _without(self, dropout: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        training = args[2] if len(args) > 2 else kwargs.get("training", self._dropouts[dropout])
        self.used = self.used or bool(training)
        return args[0] if args else kwargs["input"]


class FunctionalNorms(NoDropout):
    """Inside this mode, too, dropout is off, and ``found`` notes normalization by function call.

    ``found``: {module that calls it: function}.

    Args:
        trace: which follows the pass and knows the innermost module that is running.
        known: names of the normalization layers, which call these functions themselves.
    """

    def __init__(self, trace: Trace, known: Iterable[str]) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._norms = _FIRST_NORMS | _norms()
        self._trace = trace
        self._known = frozenset(known)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in self._dropouts:
            return self._without(func, args, kwargs)
        if func in self._norms and (inside := self._trace.innermost) is not None:
            # Weight-standardized layers normalize their weight by F.batch_norm; that is no layer of its own.
            own_weight = isinstance(inside.module, nn.modules.conv._ConvNd | nn.Linear)
            if inside.name not in self._known and not own_weight:
                self.found.setdefault(inside.name or type(inside.module).__name__, self._norms[func])
        return func(*args, **kwargs)
