"""A copy of a model that shares nothing with it, also where ``copy.deepcopy`` gives up; and what must not be copied."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn import UninitializedBuffer
from torch.overrides import TorchFunctionMode

from .errors import IdealGroupsError
from .norms import is_lazy

_WRAPPERS = {
    "DistributedDataParallel": "wrapped in DistributedDataParallel; plan and convert the network before wrapping it",
    "DataParallel": "wrapped in DataParallel; plan and convert the network before wrapping it",
    "FullyShardedDataParallel": "wrapped in FullyShardedDataParallel; plan and convert the network before wrapping it",
    "FSDPModule": "sharded by fully_shard; plan and convert the network before sharding it",
    "DeepSpeedEngine": "wrapped in a DeepSpeedEngine; plan and convert the network before deepspeed.initialize",
    "AbstractGradSampleModule": "made private by Opacus; plan and convert the network before make_private",
    "OptimizedModule": "compiled; plan and convert the network before torch.compile",
    "ScriptModule": "a TorchScript module; plan and convert the Python network before scripting or tracing it",
    "_ConvBnNd": "fused for quantization; plan and convert the network before preparing it for quantization",
}
"""Classes, by name so that none has to be imported, around or inside which no layer can be exchanged."""

Model = TypeVar("Model", bound=nn.Module)


class _CopyAnyTensor(TorchFunctionMode):
    """Deep-copies the tensors torch refuses to: results of operations by value, and the buffers of lazy modules."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__deepcopy__:
            tensor = args[0]
            if isinstance(tensor, UninitializedBuffer):
                blank: Any = UninitializedBuffer  # its annotations do not know device and dtype
                return blank(device=tensor.device, dtype=tensor.dtype)
            if not tensor.is_leaf:
                return tensor.detach().clone()
        return func(*args, **(kwargs or {}))


def copy_model(model: Model) -> Model:
    """A deep copy: parameters, buffers, hooks and flags, but no gradients; a change to either does not reach the other.

    Tensors that autograd made (the ``weight`` that ``torch.nn.utils.weight_norm`` recomputes on each call, a stored
    activation) are copied by value, without their history. Process groups are shared, for they cannot be copied.

    Raises:
        IdealGroupsError: the model holds something Python cannot copy (an open file, a lock).

    >>> layer = nn.utils.spectral_norm(nn.Linear(2, 2))
    >>> twin = copy_model(layer)
    >>> twin.weight_orig is layer.weight_orig, bool((twin.weight_orig == layer.weight_orig).all())
    (False, True)
    """
    groups = (getattr(module, "process_group", None) for module in model.modules())
    memo: dict[int, Any] = {id(group): group for group in groups if group is not None}
    try:
        with _CopyAnyTensor():
            return copy.deepcopy(model, memo)
    except Exception as error:
        # Whatever a user's own __deepcopy__ or __reduce__ raises: the way out is the same.
        raise IdealGroupsError(
            f"cannot copy the {type(model).__name__} ({type(error).__name__}: {error}); "
            "remove what cannot be copied from it, or convert a freshly built one with inplace=True."
        ) from error


def refuse_unsupported(model: nn.Module) -> None:
    """Raise unless ``model`` is an ordinary module all the way down.

    Raises:
        IdealGroupsError: it, or a module in it, is wrapped for parallel training, sharded, compiled, scripted, or a
            lazy module that has not seen its first input. The message says what to do first.

    >>> refuse_unsupported(nn.DataParallel(nn.Linear(2, 2)))
    Traceback (most recent call last):
    ...
    idealgroups.errors.IdealGroupsError: the model is wrapped in DataParallel; plan and convert the network before \
wrapping it.
    """
    if not isinstance(model, nn.Module):
        raise IdealGroupsError(f"expected a torch.nn.Module, but got a {type(model).__name__}.")
    for name, module in model.named_modules():
        subject = f"{name} in the model" if name else "the model"
        # A module's own .compile() leaves its class alone.
        compiled = ["OptimizedModule"] if getattr(module, "_compiled_call_impl", None) is not None else []
        for base in [*compiled, *(cls.__name__ for cls in type(module).__mro__)]:
            if base in _WRAPPERS:
                raise IdealGroupsError(f"{subject} is {_WRAPPERS[base]}.")
        if is_lazy(module):
            raise IdealGroupsError(
                f"{subject} is a {type(module).__name__} that has not seen an input yet; "
                "run the model once on an example, then plan and convert it."
            )
