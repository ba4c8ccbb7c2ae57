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

_NORMS: dict[Callable[..., Any], str] = {
    F.group_norm: "F.group_norm",
    torch.group_norm: "torch.group_norm",
    F.batch_norm: "F.batch_norm",
    torch.batch_norm: "torch.batch_norm",
    F.instance_norm: "F.instance_norm",
    torch.instance_norm: "torch.instance_norm",
    # What the graph of torch.export calls.
    torch.ops.aten.group_norm.default: "aten.group_norm",
    torch.ops.aten.batch_norm.default: "aten.batch_norm",
    torch.ops.aten.instance_norm.default: "aten.instance_norm",
}
_DROPOUTS: dict[Callable[..., Any], bool] = {
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), True),
    **dict.fromkeys((F.alpha_dropout, F.feature_alpha_dropout), False),
    **dict.fromkeys((torch.ops.aten.dropout.default, torch.ops.aten.feature_dropout.default), True),
}
"""{function: its default of ``training``, the third argument}."""


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

    A mode sees every operation and every look at a tensor's attributes, so a pass that needs none goes without it.

    >>> with NoDropout():
    ...     F.dropout(torch.ones(3), p=0.9, training=True)
    tensor([1., 1., 1.])
    """

    def __init__(self) -> None:
        super().__init__()
        self.used = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        return self._without(func, args, kwargs) if func in _DROPOUTS else func(*args, **kwargs)

    def _without(self, dropout: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        training = args[2] if len(args) > 2 else kwargs.get("training", _DROPOUTS[dropout])
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
        if func in _DROPOUTS:
            return self._without(func, args, kwargs)
        if func in _NORMS and (inside := self._trace.innermost) is not None:
            # Weight-standardized layers normalize their weight by F.batch_norm; that is no layer of its own.
            own_weight = isinstance(inside.module, nn.modules.conv._ConvNd | nn.Linear)
            if inside.name not in self._known and not own_weight:
                self.found.setdefault(inside.name or type(inside.module).__name__, _NORMS[func])
        return func(*args, **kwargs)
