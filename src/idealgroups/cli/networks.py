"""Build the network that a word on the command line names."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import IdealGroupsError, one_line

DEFAULT_SHAPE = (3, 224, 224)


@dataclass(frozen=True)
class Spec:
    """A network with random weights and how to call it.

    ``shape``: of one sample, without the batch. ``arguments``: maps a batch of that shape to what the model takes; for
    most models that is the batch. ``inputs``: the example inputs that the factory returned, if it returned any.
    """

    name: str
    model: nn.Module
    shape: tuple[int, ...]
    arguments: Callable[[Tensor], Any] = lambda batch: batch
    inputs: Any = None


def load_model(spec: str, seed: int = 0, keywords: Mapping[str, Any] | None = None) -> Spec:
    """Build the network that ``spec`` names. Nothing is downloaded; the weights are random.

    Args:
        spec: torchvision:NAME, timm:NAME, FILE.py:FACTORY or MODULE:FACTORY. A factory returns a module, or a module
            and its example inputs.
        seed: of the weights.
        keywords: passed to the builder or factory, as in ``{"num_classes": 10}``.

    Raises:
        IdealGroupsError: no such model (with near matches), a missing extra, a factory that raises.
    """
    keywords = dict(keywords or {})
    source, colon, name = spec.rpartition(":")
    if not colon and spec.endswith(".py"):
        raise IdealGroupsError(f"{spec!r} is a file; name the factory in it that returns the model, as in {spec}:make.")
    if not colon or not source or not name:
        raise IdealGroupsError(
            f"{spec!r} names no model; write torchvision:resnet50, timm:resnet50_gn, my_nets.py:factory or "
            "package.module:factory."
        )
    with _seeded(seed):
        if source == "torchvision":
            return _torchvision(name, keywords)
        if source == "timm":
            return _timm(name, keywords)
        return _factory(source, name, keywords)


def parse_shape(text: str) -> tuple[int, ...]:
    """Read the sizes of one sample.

    Raises:
        IdealGroupsError: not positive whole numbers joined by x.

    >>> parse_shape("3x128x128")
    (3, 128, 128)
    """
    parts = text.lower().split("x")
    if not all(re.fullmatch(r"[0-9]{1,9}", part) and int(part) > 0 for part in parts):
        raise IdealGroupsError(
            f"--input must be the sizes of one sample joined by x, without the batch, as in 3x224x224, got {text!r}."
        )
    return tuple(int(part) for part in parts)


def parse_keywords(texts: Sequence[str]) -> dict[str, Any]:
    """Read keyword arguments; a value that is no Python literal is a string.

    Raises:
        IdealGroupsError: not NAME=VALUE, or the same name twice.

    >>> parse_keywords(["num_classes=10", "act_layer=relu", "depths=(2, 2)"])
    {'num_classes': 10, 'act_layer': 'relu', 'depths': (2, 2)}
    """
    keywords: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise IdealGroupsError(f"--arg must be NAME=VALUE, as in num_classes=10, got {text!r}.")
        if name in keywords:
            raise IdealGroupsError(f"--arg sets {name} twice; give it once.")
        try:
            keywords[name] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            keywords[name] = value
    return keywords


def to_device(value: Any, device: torch.device) -> Any:
    """Return inputs with every tensor on ``device``; tuples, lists and dicts are followed."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device) for item in value)
    return value


def parse_device(text: str) -> torch.device:
    """Return the device that ``text`` names, after trying to put a tensor there.

    Raises:
        IdealGroupsError: no such device, or this build of torch cannot use it.
    """
    try:
        device = torch.device(text)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise IdealGroupsError(f"--device {text} cannot be used here: {reason}.") from None
    return device


def _torchvision(name: str, keywords: Mapping[str, Any]) -> Spec:
    models = _extra("torchvision.models", "torchvision")
    names = models.list_models()
    if name not in names:
        raise _unknown(f"torchvision:{name}", name, names, "torchvision:")
    fixed: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        fixed["weights_backbone"] = None
    _refuse_pretrained(fixed, keywords)
    model = _build(f"torchvision:{name}", lambda: models.get_model(name, **fixed, **keywords))
    shape = _torchvision_shape(models, name)
    where = models.get_model_builder(name).__module__
    if ".detection" in where:
        return Spec(f"torchvision:{name}", model, shape, _detection_arguments)
    if ".optical_flow" in where:
        return Spec(f"torchvision:{name}", model, shape, _flow_arguments)
    return Spec(f"torchvision:{name}", model, shape)


def _detection_arguments(batch: Tensor) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images and, since in training the model computes its own losses, one object in the middle of each."""
    height, width = batch.shape[-2:]
    box = torch.tensor([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]])
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[:, height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 1
    points = torch.tensor([[[width / 2, height / 2, 1.0]] * 17])
    target = {"boxes": box, "labels": torch.tensor([1]), "masks": mask, "keypoints": points}
    return list(batch), [target for _ in batch]


def _flow_arguments(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Two frames: the batch and itself moved by four pixels."""
    return batch, batch.roll(4, dims=-1)


def _torchvision_shape(models: Any, name: str) -> tuple[int, ...]:
    """The input the model's weights were evaluated on; nothing is downloaded to know it."""
    try:
        transforms = models.get_model_weights(name).DEFAULT.transforms()
        crop = getattr(transforms, "crop_size", None)
        size = crop if isinstance(crop, list | tuple) else (crop,)
        size = tuple(size) * 2 if len(size) == 1 else tuple(size)
        if not all(isinstance(s, int) for s in size):
            return DEFAULT_SHAPE
    except (AttributeError, TypeError, ValueError):
        return DEFAULT_SHAPE
    return (3, 16, *size) if ".video" in models.get_model_builder(name).__module__ else (3, *size)


def _refuse_pretrained(fixed: Mapping[str, Any], keywords: Mapping[str, Any]) -> None:
    for name in keywords.keys() & fixed.keys():
        raise IdealGroupsError(
            f"--arg cannot set {name}, because the command line plans networks with random weights; plan a trained "
            "network in Python."
        )


def _timm(name: str, keywords: Mapping[str, Any]) -> Spec:
    timm = _extra("timm", "timm")
    if not timm.is_model(name):
        raise _unknown(f"timm:{name}", name, timm.list_models(), "timm:")
    fixed = {"pretrained": False}
    _refuse_pretrained(fixed, keywords)
    model = _build(f"timm:{name}", lambda: timm.create_model(name, **fixed, **keywords))
    channels, *sizes = (getattr(model, "pretrained_cfg", None) or {}).get("input_size") or DEFAULT_SHAPE
    return Spec(f"timm:{name}", model, (keywords.get("in_chans", channels), *sizes))


def _factory(source: str, name: str, keywords: Mapping[str, Any]) -> Spec:
    module = _from_file(Path(source)) if source.endswith(".py") else _import(source)
    factory = getattr(module, name, None)
    if factory is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise _unknown(f"{source}:{name}", name, public, f"{source}:")
    title = f"{Path(source).stem}:{name}" if source.endswith(".py") else f"{source}:{name}"
    inputs: list[Any] = []
    if isinstance(factory, nn.Module):
        if keywords:
            raise IdealGroupsError(f"{source}:{name} is a network, not a factory, so --arg has nothing to set.")
        model = factory
    else:
        model = _build(f"{source}:{name}", lambda: factory(**keywords), inputs)
    return Spec(title, model, DEFAULT_SHAPE, inputs=inputs[0] if inputs else None)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise IdealGroupsError(f"there is no file {path}; give the path of a Python file, as in my_nets.py:factory.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise IdealGroupsError(f"{path} cannot be imported; give a Python file.")
    module = importlib.util.module_from_spec(spec)
    new = sys.modules.setdefault(path.stem, module) is module
    sys.path.insert(0, str(path.resolve().parent))  # so that the file finds its neighbors, as a script would
    done = False
    try:
        spec.loader.exec_module(module)
        done = True
    except Exception as error:
        raise IdealGroupsError(f"importing {path} raised {one_line(error)}.") from None
    finally:
        sys.path.remove(str(path.resolve().parent))
        if new and not done:
            sys.modules.pop(path.stem, None)
    return module


def _import(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            near = difflib.get_close_matches(name, ["torchvision", "timm"], n=1)
            hint = (
                f"did you mean {near[0]}:?" if near else "is it installed, or did you mean a file, my_nets.py:factory?"
            )
            raise IdealGroupsError(f"there is no module {name!r}; {hint}") from None
        raise IdealGroupsError(f"importing {name} needs {error.name}, which is not installed.") from None
    except Exception as error:
        raise IdealGroupsError(f"importing {name} raised {one_line(error)}.") from None
    finally:
        sys.path.remove(str(Path.cwd()))


def _build(name: str, factory: Callable[[], Any], inputs: list[Any] | None = None) -> nn.Module:
    """Call ``factory``. If it returns (model, example inputs), append the inputs to ``inputs``."""
    try:
        model = factory()
    except Exception as error:
        hint = {TypeError: "set its arguments with --arg NAME=VALUE", ModuleNotFoundError: "install it first"}
        text = one_line(error).rstrip(".?")  # Python 3.13 ends with "Did you mean …?"
        then = f"; {hint[type(error)]}." if type(error) in hint else "."
        raise IdealGroupsError(f"building {name} raised {text}{then}") from None
    if inputs is not None and isinstance(model, tuple) and len(model) == 2:
        inputs.append(model[1])
        model = model[0]
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise IdealGroupsError(f"{name} returned an object of class {kind}; it must return a torch.nn.Module.")
    return model


def _extra(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise IdealGroupsError(
            f"{package} is not installed or does not import ({error}); pip install 'idealgroups[zoo]'."
        ) from None


def _unknown(spec: str, name: str, names: Sequence[str], prefix: str) -> IdealGroupsError:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    others = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    hint = (
        "did you mean " + " or ".join(prefix + other for other in near) + "?"
        if near
        else f"it has {len(names)} others: {others}."
    )
    return IdealGroupsError(f"there is no model {spec}; {hint}")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every device
        yield
