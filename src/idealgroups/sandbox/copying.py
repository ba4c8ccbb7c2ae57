"""A copy of a model that shares nothing with it, also where ``copy.deepcopy`` gives up."""

from __future__ import annotations

import copy
import copyreg
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import UninitializedBuffer
from torch.overrides import TorchFunctionMode

from ..errors import IdealGroupsError
from .functions import PLAIN, is_plain, rebind_functions
from .walking import buffers, named_modules, parameters

TORCH_KEEPS = frozenset(vars(nn.Module()))
"""The attributes that every module has."""

_DICTS = (dict, OrderedDict)
_SETTERS = (nn.Module, nn.modules.conv._ConvNd)
"""Their ``__setstate__`` sets every attribute and adds those that an old file lacks: a module in memory lacks none."""
_NEW_OBJECT = copyreg.__newobj__  # type: ignore[attr-defined]

Model = TypeVar("Model", bound=nn.Module)


class CopyAnyTensor(TorchFunctionMode):
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
    Weak references point into the copy, and what somebody put on a parameter (``no_decay = True``) stays on it. Hooks
    and other functions get closures of their own: what they share with the model, the copies share with the copy.

    Raises:
        IdealGroupsError: the model holds something Python cannot copy (an open file, a lock), or a compiled function.

    >>> layer = nn.utils.spectral_norm(nn.Linear(2, 2))
    >>> twin = copy_model(layer)
    >>> twin.weight_orig is layer.weight_orig, bool((twin.weight_orig == layer.weight_orig).all())
    (False, True)
    """
    modules = named_modules(model)
    groups = (vars(module).get("process_group") for module in modules.values())
    memo = {id(group): group for group in groups if group is not None}
    _refuse_compiled_functions(modules)
    try:
        with torch.inference_mode(False):
            copy_plain_tensors(modules.values(), memo)
            with CopyAnyTensor():
                twin: Model = copied(model, memo)
    except Exception as error:
        # Whatever a user's own __deepcopy__ or __reduce__ raises: the way out is the same.
        raise IdealGroupsError(
            f"cannot copy the {type(model).__name__} ({type(error).__name__}: {error}); "
            "take what cannot be copied off the model while you plan it; apply needs no copy with inplace=True."
        ) from error
    own = {id(module) for module in modules.values()}
    copies = named_modules(twin)
    shared = next((name for name, module in copies.items() if id(module) in own), None)
    if shared is not None:
        raise IdealGroupsError(
            f"a copy of the {type(model).__name__} shares {shared or 'itself'} with it (a __deepcopy__ that does not "
            "copy), so planning would change the model; mend that __deepcopy__ or take it off while you plan."
        )
    _carry_over(modules.values(), copies.values(), memo)
    rebind_functions(copies.values(), memo)
    return twin


def copy_plain_tensors(modules: Collection[nn.Module], memo: dict[int, Any]) -> None:
    """Add copies of the ordinary tensors of ``modules`` to ``memo``: those need no mode, whose looks take time."""
    memo |= _plain_buffers(buffers(modules), memo)
    for parameter in parameters(modules):
        if type(parameter) is nn.Parameter:
            copy.deepcopy(parameter, memo)


def _plain_buffers(tensors: Iterable[Tensor], memo: dict[int, Any]) -> dict[int, Tensor]:
    """Copy the ordinary ones of the buffers ``tensors`` as ``copy.deepcopy`` does, at a fifth of its price.

    What shares their memory shares that of the copies, by the ``memo``.
    """
    copies = {}
    for buffer in tensors:
        if type(buffer) is Tensor and buffer.device.type in ("cpu", "cuda") and buffer.layout is torch.strided:
            plain = not (buffer.requires_grad or buffer.is_quantized or buffer.is_conj() or buffer.is_neg())
            if plain and buffer.is_leaf and not vars(buffer):
                memory = copy.deepcopy(buffer.untyped_storage(), memo)
                blank = torch.empty(0, dtype=buffer.dtype, device=buffer.device)
                copies[id(buffer)] = blank.set_(memory, buffer.storage_offset(), buffer.shape, buffer.stride())
    return copies


def copied(value: Any, memo: dict[int, Any]) -> Any:
    """Do what ``copy.deepcopy`` does, in half of its time: it looks at each name and number in a module by itself.

    Everything is copied in the same order, for a class may look at what has been copied before.
    """
    if type(value) in PLAIN or is_plain(value):
        return value
    if (found := memo.get(id(value))) is not None:
        return found
    if issubclass(type(value), nn.Module):
        state = _state(value)
        return copy.deepcopy(value, memo) if state is None else _with_state(value, state, memo)
    if type(value) not in _DICTS or (value and not (type(value) is dict and all(type(key) is str for key in value))):
        return copy.deepcopy(value, memo)
    new = memo[id(value)] = type(value)()
    for key, item in value.items():
        new[key] = copied(item, memo)
    return new


def _with_state(module: nn.Module, state: dict[str, Any], memo: dict[int, Any]) -> nn.Module:
    new = memo[id(module)] = type(module).__new__(type(module))
    memo.setdefault(id(memo), []).append(state)  # as long as the memo knows its parts by their ids, it must live
    copies = {key: copied(item, memo) for key, item in state.items()}
    setters = [kind.__setstate__ for kind in _SETTERS]  # asked now, for torch.compile puts its own around them
    if type(module).__setstate__ in setters and copies.keys() >= TORCH_KEEPS:
        for key, item in copies.items():  # one by one, as in a constructor: so modules of a class share their keys
            vars(new)[key] = item
        copies = {}
    new.__setstate__(copies)  # type: ignore[no-untyped-call]
    return new


def _state(module: nn.Module) -> dict[str, Any] | None:
    """The attributes that are to be copied, where nothing else is; what has a way of its own has None."""
    kind = type(module)
    if hasattr(module, "__deepcopy__") or kind in copyreg.dispatch_table:
        return None
    make, arguments, state, *items = (*module.__reduce_ex__(4), None, None, None)[:5]
    plain = make is _NEW_OBJECT and arguments == (kind,) and items == [None, None]
    return state if plain and type(state) is dict else None


def _refuse_compiled_functions(modules: Mapping[str, nn.Module]) -> None:
    """A compiled function runs the layers it was compiled with, also in a copy; ``torch.compiler.disable`` does not."""
    for name, module in modules.items():
        for key, value in attributes(module):
            function = value.__func__ if isinstance(value, MethodType) else value
            notes = vars(function) if isinstance(function, FunctionType) else {}
            if "_torchdynamo_orig_callable" in notes and not notes.get("_torchdynamo_disable", False):
                raise IdealGroupsError(
                    f"{f'{name}.{key}' if name else key} is a compiled function, which a copy of the model would share "
                    "with the original; plan and convert the network before torch.compile."
                )


def attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What somebody set on a module, without what torch keeps there."""
    for key, value in vars(module).items():
        if key not in TORCH_KEEPS:
            yield key, value


def _carry_over(modules: Collection[nn.Module], copies: Collection[nn.Module], memo: dict[int, Any]) -> None:
    """What deepcopy leaves behind: where weak references point, and flags on parameters."""
    for module in copies:
        for key, value in list(attributes(module)):
            if type(value) is weakref.ref and id(value()) in memo:
                vars(module)[key] = weakref.ref(memo[id(value())])
    for parameter, copied in zip(parameters(modules), parameters(copies), strict=True):
        flags = {key: value for key, value in vars(parameter).items() if isinstance(value, bool | int | float | str)}
        for key, value in flags.items():
            if key not in vars(copied):
                setattr(copied, key, value)
