"""Which models can be planned and converted: ordinary modules all the way down."""

from __future__ import annotations

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import UninitializedBuffer, UninitializedParameter

from ..errors import IdealGroupsError
from .walking import named_modules

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


_UNINITIALIZED = (UninitializedParameter, UninitializedBuffer)


def is_lazy(module: nn.Module) -> bool:
    """A module with uninitialised tensors, as lazy ones have: its number of channels is not known yet."""
    return any(type(t) in _UNINITIALIZED for tensors in (module._parameters, module._buffers) for t in tensors.values())


def has_values(tensor: Tensor) -> bool:
    """Whether the tensor holds numbers; those on the meta device and fake ones have a shape only."""
    return not tensor.is_meta and not isinstance(tensor, FakeTensor)


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
    for name, module in named_modules(model).items():
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
