"""Turn layers into group norms where they stand, all of them or none. The only file that changes modules.

The object stays and its class becomes ``torch.nn.GroupNorm``, as torch's own lazy modules do it. So every parent, list
or hook that knows the layer knows the group norm, a layer that is the model itself can be converted, and the very same
γ and β parameters stay in use (optimizers and ties keep theirs).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import IdealGroupsError
from ..norms import Norm
from ..norms.group_norm_act import GroupNormAct
from .travel import Settings, carry

Undo = list[Callable[[], None]]
"""What puts each change back, in the order in which the changes were made."""

_SETTINGS = {"num_features", "num_channels", "num_groups", "eps", "affine", "elementwise_affine", "normalized_shape"}
_SETTINGS |= {"momentum", "track_running_stats", "process_group", "data_format", "_fast_norm"}
"""What the constructors of normalization layers set; anything else that someone put on a layer stays there."""


@contextmanager
def all_or_nothing() -> Iterator[Undo]:
    """Undo every change of the block, last one first, where anything in it fails."""
    undo: Undo = []
    try:
        yield undo
    except BaseException:
        for back in reversed(undo):
            back()
        raise


def set_norms(
    model: nn.Module,
    settings: Mapping[str, Settings],
    norms: Mapping[str, Norm],
    undo: Undo,
    where: str,
    tensors: Collection[str] = (),
) -> None:
    """Make each layer in ``settings`` a group norm with these settings, which its ``state_dict`` carries from now on.

    ``norms``: what the layers of the model are, by their first names. ``where``: says in messages what the settings are
    from. ``tensors``: names of weights that will be loaded; a layer whose γ or β is among them gets one where it has
    none.

    Raises:
        IdealGroupsError: a layer is missing, is no norm, or cannot be changed; the block of :func:`all_or_nothing` that
            ``undo`` is of then puts the others back.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    first = {id(module): name for name, module in model.named_modules()}
    parameters: dict[int, nn.Parameter] = {}
    done: dict[int, Settings] = {}
    like = next(model.parameters(), torch.empty(0))
    for name, wanted in settings.items():
        module = modules.get(name)
        norm = None if module is None else norms.get(first[id(module)])
        if module is None or norm is None:
            found = "has no such layer" if module is None else f"has a {type(module).__name__} there"
            raise IdealGroupsError(f"{where} is of another network: it gives {name} groups and the model {found}.")
        if norm.num_channels % wanted.num_groups:
            raise IdealGroupsError(
                f"{where} gives {name or 'the model'} {wanted.num_groups} groups, which do not divide its "
                f"{norm.num_channels} channels; it is of another network."
            )
        if done.setdefault(id(module), wanted).differs(wanted):
            raise IdealGroupsError(
                f"{where} gives {name} {wanted}, but it is one layer with another that gets {done[id(module)]}."
            )
        _become_group_norm(name, module, norm, wanted, parameters, undo)
        for part in ("weight", "bias"):
            if getattr(module, part) is None and ".".join(filter(None, (name, part))) in tensors:
                _add_parameter(module, part, norm.num_channels, like, undo)
    undo += [handle.remove for handle in carry(model, settings)]


def _become_group_norm(
    name: str, module: nn.Module, norm: Norm, wanted: Settings, parameters: dict[int, nn.Parameter], undo: Undo
) -> None:
    """Turn ``module`` into a group norm; ``parameters`` remembers what a shared buffer became."""
    eps = norm.eps if wanted.eps is None else wanted.eps
    before = dict(vars(module))
    if isinstance(module, nn.GroupNorm):
        undo.append(lambda: vars(module).update(num_groups=before["num_groups"], eps=before["eps"]))
        module.num_groups, module.eps = wanted.num_groups, eps
        return
    blank = GroupNormAct if norm.after or norm.activation else nn.GroupNorm
    state = vars(blank(wanted.num_groups, norm.num_channels, eps=eps, affine=norm.affine, device="meta"))
    state["_parameters"] = {
        part: None if own is None else _as_parameter(getattr(module, own), norm.repeats, parameters, undo)
        for part, own in (("weight", norm.weight), ("bias", norm.bias))
    }
    state["_modules"] |= module._modules
    if norm.activation is not None:
        state["_modules"]["act"] = getattr(nn, norm.activation)()
    fresh = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")
    kept = {key: value for key, value in before.items() if key not in _SETTINGS and key not in fresh}
    kind = type(module)
    try:
        module.__class__ = blank
    except TypeError:  # its class has __slots__
        raise IdealGroupsError(
            f"{name or 'the model'} is a {kind.__name__}, whose class has __slots__, so it cannot become a group norm; "
            f"take __slots__ off, or leave the layer out with exclude={name!r}."
        ) from None
    undo.append(lambda: _put_back(module, kind, before))
    module.__dict__ = state | kept


def _put_back(module: nn.Module, kind: type[nn.Module], attributes: dict[str, object]) -> None:
    module.__class__ = kind
    module.__dict__ = attributes


def _add_parameter(module: nn.Module, part: str, num_channels: int, like: Tensor, undo: Undo) -> None:
    """Give a norm without affine parameters the one that its weights have."""
    blank = torch.full((num_channels,), float(part == "weight"), dtype=like.dtype, device=like.device)

    def back() -> None:
        module._parameters[part] = None

    undo.append(back)
    module._parameters[part] = nn.Parameter(blank)


def _as_parameter(tensor: Tensor, repeats: int, parameters: dict[int, nn.Parameter], undo: Undo) -> nn.Parameter:
    if isinstance(tensor, nn.Parameter) and repeats == 1:
        if tensor.ndim != 1:  # the parameter stays, for an optimizer may know it
            data, gradient = tensor.data, tensor.grad

            def back() -> None:
                tensor.data, tensor.grad = data, gradient

            undo.append(back)
            tensor.grad = None
            tensor.data = tensor.data.reshape(-1)
        return tensor
    values = tensor.detach().reshape(-1)
    values = values if repeats == 1 else values.repeat_interleave(repeats)
    flat = nn.Parameter(values, requires_grad=tensor.requires_grad)
    return parameters.setdefault(id(tensor), flat)
