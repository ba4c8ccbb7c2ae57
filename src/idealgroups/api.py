"""model + example inputs → observe → solve → :class:`Plan`; and ``convert``, which applies it at once."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from .calibration.batches import count_samples, first_samples, read_batches
from .calibration.calibrate import MAX_SAMPLES
from .closed import plan_from_shapes
from .conversion.matching import match
from .conversion.restoring import restore
from .conversion.surgery import replace_norms
from .conversion.trained import outside, trained_norms
from .conversion.travel import norms_of
from .errors import IdealGroupsError
from .fingerprint import fingerprint
from .measuring.loss import Loss
from .measuring.observation import Optimizer
from .measuring.observer import Observer
from .measuring.shapes import has_values
from .planner import TYPICAL_PASSES, Survey
from .pretrained import FAITHFUL, convert_trained
from .processes import shared
from .progress import steps
from .results import Measurement, Plan
from .sandbox.coupling import coupled, coupled_copy
from .sandbox.supported import refuse_unsupported
from .sandbox.tree import tensors
from .selection import Patterns
from .synthetic import inputs_for
from .theory.strategies import Strategy, parse_strategy
from .trial import replace_and_try

Model = TypeVar("Model", bound=nn.Module)

SAMPLES_TO_PLAN = 16
"""How many of the samples to calibrate on the numbers of groups are planned with, where a plan measures gradients."""

SAMPLES_TO_TRY = 4
"""The same where calibration chooses the numbers, so that gradients only tell whether the result works."""


def plan(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    input_size: Sequence[int] | None = None,
    strategy: str | Strategy = "isometric",
    optimizer: Optimizer = "sgd",
    loss: Loss | None = None,
    seed: int = 0,
    name: str | None = None,
    include: str | Collection[str] | None = None,
    exclude: str | Collection[str] | None = None,
    progress: bool | None = None,
) -> Plan:
    """Choose the number of groups of every normalization layer of ``model``; the model is left exactly as it was.

    Args:
        model: any network with group, batch, instance or channel-wise layer normalization over (N, C, …).
        example_inputs: what the model takes: a tensor, a tuple (positional) or a mapping (keywords). No labels.
        input_size: instead of ``example_inputs`` the shape of one input, batch first, as in ``(8, 3, 128, 128)``: the
            inputs are then synthetic (1/f noise).
        strategy: ``isometric``, ``uniform``, ``block``, a baseline such as ``fixed-32``, or an object such as
            ``Fixed(32)``. ``block`` and the baselines need shapes alone: no weight is copied and nothing is computed
            or measured, and the model may be fake or on the meta device.
        optimizer: what trains the network. ``sgd`` balances the relative step of every layer, ``dp-sgd`` its signal
            against the noise; with ``adam`` the plan is that for ``sgd``, and the number of groups matters little.
        loss: the model's output → a scalar. Default: a fixed random projection of everything the model returns.
        seed: of the random projection and of whatever the model draws. Same seed, same plan.
        name: how the plan calls the model; default its class.
        include: plan only layers whose name matches one of these patterns (as in :mod:`fnmatch`: ``"layer4.*"``).
        exclude: leave layers whose name matches one of these patterns as they are.
        progress: show how far planning is; default where standard error is a terminal.

    Returns:
        The plan; ``print`` it for a table.

    Raises:
        IdealGroupsError: no normalization layer, inputs that do not fit, non-finite gradients, a wrapped model.

    Warns:
        UserWarning: gradients reach nearly no weight; the network is causal, and would not be with group norms. Only
            strategies that measure tell.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    >>> plan(net, torch.randn(4, 3, 8, 8), strategy="fixed-32").num_groups
    {'1': 16}
    """
    refuse_unsupported(model)
    chosen = parse_strategy(strategy)
    patterns = Patterns(include, exclude)
    inputs = inputs_for(model, example_inputs, input_size, seed)
    if chosen.closed and patterns == Patterns():
        # What cannot run without values may run with them; if not, that says better why.
        with suppress(IdealGroupsError) if has_values(model) else nullcontext():
            called = name or type(model).__name__
            return plan_from_shapes(model, inputs, chosen, seed=seed, optimizer=optimizer, name=called)

    def make() -> Plan:
        with (
            steps(progress, "planning", total=TYPICAL_PASSES) as advance,
            Survey(
                model,
                inputs,
                optimizer=optimizer,
                loss=loss,
                seed=seed,
                name=name,
                include=patterns.include,
                exclude=patterns.exclude,
            ) as survey,
        ):
            return survey.plan(chosen, advance=advance)

    return shared(make, Plan.to_dict, Plan.from_dict, fingerprint(model))


def apply(
    model: Model,
    plan: Plan,
    example_inputs: Any = None,
    *,
    loss: Loss | None = None,
    seed: int = 0,
    inplace: bool = False,
    include: str | Collection[str] | None = None,
    exclude: str | Collection[str] | None = None,
) -> Model:
    """Give every planned layer of ``model`` its number of groups; batch norm and its kin become ``torch.nn.GroupNorm``.

    The object that a layer is stays, and its class changes: ``layer.__class__`` becomes ``torch.nn.GroupNorm``. So
    lists, hooks and optimizers that hold the layer or its γ and β go on working. Code that asks for the class of the
    layer, or for an attribute that only the old class had, does not.

    Args:
        model: the network the plan was made for; a copy of it is converted.
        plan: made by :func:`plan`, or loaded from a file.
        example_inputs: what the model takes. If given, the converted model is run once on a copy, and must do what is
            measured with the same numbers of groups on ``model``.
        loss: as in :func:`plan`, for this trial.
        seed: as in :func:`plan`, for this trial.
        inplace: convert ``model`` itself, and return it.
        include: convert only layers whose name matches one of these patterns (as in :mod:`fnmatch`: ``"layer4.*"``).
        exclude: leave layers whose name matches one of these patterns.

    Returns:
        The converted model.

    Raises:
        IdealGroupsError: the model is wrapped, compiled, scripted or lazy; the plan is for another network; a pattern
            matches nothing; or the converted model does not do what was measured. Nothing has been changed then.

    Warns:
        UserWarning: trained layers change their function; the model has layers that the plan does not know, or that
            did not run when it was made.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU())
    >>> images = torch.randn(2, 3, 8, 8)
    >>> apply(net, plan(net, images, strategy="group-size-16"), images)[1].num_groups, type(net[1]).__name__
    (2, 'BatchNorm2d')
    """
    patterns = Patterns(include, exclude)
    if example_inputs is None:
        return replace_norms(model, plan, inplace=inplace, include=include, exclude=exclude).model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same ones come when the plan is carried out
        groups = match(model, plan, patterns).groups

    def watch(tried: nn.Module, copy_of: nn.Module | None = None) -> Observer:
        return Observer(tried, example_inputs, loss, seed, skip=patterns.why_not, copy_of=copy_of)

    with closing(watch(model)) as observer:
        before, promised = observer.observe(None), observer.observe(groups)
    return replace_and_try(
        model, plan, before, promised, watch, inplace=inplace, include=include, exclude=exclude
    ).model


def convert(
    model: Model,
    example_inputs: Any,
    *,
    strategy: str | Strategy | None = None,
    calibrate: Any = None,
    optimizer: Optimizer = "sgd",
    loss: Loss | None = None,
    seed: int = 0,
    inplace: bool = False,
    include: str | Collection[str] | None = None,
    exclude: str | Collection[str] | None = None,
    progress: bool | None = None,
) -> tuple[Model, Plan]:
    """Plan and apply in one step: BatchNorm and its like become GroupNorm, each with its ideal number of groups.

    A trained network keeps what it knows: where batch norms hold running statistics from training, γ, β and eps are
    calibrated on the example inputs (:func:`idealgroups.calibrate`), and the plan has a residual for every layer.

    The converted model is run once before it is returned, and must do what was measured. Where ``torch.distributed`` is
    initialized, process 0 does all this and the others get its plan, so every process must call it.

    Args:
        model: as in :func:`plan`.
        example_inputs: as in :func:`plan`; for a trained network real data, better a few hundred samples than a few.
        strategy: as in :func:`plan`, or ``faithful``: in every layer the most groups with which it still puts out what
            the trained layer did. Default ``faithful`` where γ and β are calibrated, else ``isometric``.
        calibrate: data to calibrate on instead of the example inputs: a batch, an iterable of batches or a
            ``DataLoader``, with or without labels. False keeps γ and β; True calibrates whether or not there are
            statistics.
        optimizer: as in :func:`plan`.
        loss: as in :func:`plan`.
        seed: as in :func:`plan`.
        inplace: convert ``model`` itself, and return it.
        include: as in :func:`idealgroups.apply`.
        exclude: as in :func:`idealgroups.apply`.
        progress: as in :func:`plan`.

    Returns:
        The converted model (a copy unless ``inplace``), and the plan for the layers that ``include`` and ``exclude``
        leave, with all others as they are.

    Raises:
        IdealGroupsError: as :func:`plan`, :func:`idealgroups.apply` and :func:`idealgroups.calibrate`, or the converted
            model does not do what was measured; nothing has been changed then.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    >>> net, made = convert(net, torch.randn(4, 3, 8, 8))
    >>> type(net[1]).__name__, net[1].num_groups == made.num_groups["1"]
    ('GroupNorm', True)
    """
    refuse_unsupported(model)
    patterns = Patterns(include, exclude)

    def make() -> tuple[Model, Plan]:
        return _convert(model, example_inputs, strategy, calibrate, optimizer, loss, seed, inplace, patterns, progress)

    def tell(result: tuple[Model, Plan]) -> dict[str, Any]:
        done, made = result
        return {"plan": made.to_dict(), "norms": norms_of(done) if made.calibrated_on else None}

    def follow(message: Any) -> tuple[Model, Plan]:
        made = Plan.from_dict(message["plan"])
        done = replace_norms(
            model, made, inplace=inplace, include=patterns.include, exclude=patterns.exclude, calibrated=True
        ).model
        return (restore(done, message["norms"], strict=False) if message["norms"] else done), made

    return shared(make, tell, follow, fingerprint(model))


def _convert(
    model: Model,
    example_inputs: Any,
    strategy: str | Strategy | None,
    calibrate: Any,
    optimizer: Optimizer,
    loss: Loss | None,
    seed: int,
    inplace: bool,
    patterns: Patterns,
    progress: bool | None,
) -> tuple[Model, Plan]:
    """Convert in this process alone."""
    batches = _to_calibrate_on(model, example_inputs, calibrate, patterns)
    if batches is None and strategy == FAITHFUL:
        raise IdealGroupsError(
            "strategy='faithful' chooses groups by calibrating a trained network; "
            "give calibrate=True or data, or choose another strategy."
        )
    strategy = strategy or ("isometric" if batches is None else FAITHFUL)
    choosing = strategy == FAITHFUL
    chosen = parse_strategy("layer" if choosing else strategy)
    if batches is not None:  # planning runs backward, which takes far more memory than calibration
        example_inputs = first_samples(example_inputs, SAMPLES_TO_TRY if choosing else SAMPLES_TO_PLAN)

    def watch(tried: nn.Module, copy_of: nn.Module | None = None) -> Observer:
        return Observer(tried, example_inputs, loss, seed, optimizer, patterns.why_not, copy_of)

    with steps(progress, "converting", total=TYPICAL_PASSES) as advance:
        with Survey(
            model,
            example_inputs,
            optimizer=optimizer,
            loss=loss,
            seed=seed,
            include=patterns.include,
            exclude=patterns.exclude,
        ) as survey:
            made = survey.plan(chosen, advance=advance)
            before, promised = survey._look.before, survey._observe(made.num_groups)
        del survey  # what it has seen, before a copy is made
        if batches is None:
            told: list[bool | None] = []

            def tell(converted: nn.Module) -> None:
                is_copy = converted is not model
                told.append(
                    coupled_copy(converted, model, example_inputs) if is_copy else coupled(model, example_inputs)
                )

            done = replace_and_try(
                model,
                made,
                before,
                promised,
                watch,
                inplace=inplace,
                include=patterns.include,
                exclude=patterns.exclude,
                then=tell,
            )
            return done.model, replace(made, samples_coupled=told[0])
        trained = convert_trained(
            made,
            before,
            promised,
            model,
            batches,
            watch,
            choosing=choosing,
            seed=seed,
            inplace=inplace,
            include=patterns.include,
            exclude=patterns.exclude,
        )
    return trained.model, replace(trained.plan, samples_coupled=coupled(trained.model, example_inputs))


def _to_calibrate_on(model: nn.Module, example_inputs: Any, calibrate: Any, patterns: Patterns) -> list[Any] | None:
    """The batches to calibrate on, or None where γ and β are to stay as they are."""
    refuse_unsupported(model)
    if calibrate is False:
        return None
    parts = len(example_inputs) if isinstance(example_inputs, tuple) else 1
    if calibrate is not None and calibrate is not True:
        return read_batches(model, calibrate, MAX_SAMPLES, parts)
    trained = [name for name in trained_norms(model) if patterns.why_not(name) is None]
    if calibrate is None and not trained:
        return None
    if not any(True for _ in tensors(example_inputs)):
        return None  # planning says what is wrong with them
    if calibrate is None and count_samples([example_inputs]) < 2:
        warnings.warn(
            "one example is too few to calibrate a trained network on, so γ and β stay as they are; "
            "give calibrate= a few hundred samples.",
            UserWarning,
            stacklevel=outside(),
        )
        return None
    return read_batches(model, example_inputs, MAX_SAMPLES, parts)


def measure(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    plan: Plan | None = None,
    input_size: Sequence[int] | None = None,
    optimizer: Optimizer = "sgd",
    loss: Loss | None = None,
    seed: int = 0,
    name: str | None = None,
    progress: bool | None = None,
) -> Measurement:
    """Measure ``model`` as it is, or as it would be with ``plan``; the model is left exactly as it was.

    Batch norm is measured as in training. Arguments and errors as in :func:`plan`.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> [layer.name for layer in measure(net, torch.randn(16, 8)).layers]
    ['0.weight', '2.weight']
    """
    with (
        steps(progress, "measuring"),
        Survey(
            model, example_inputs, input_size=input_size, optimizer=optimizer, loss=loss, seed=seed, name=name
        ) as survey,
    ):
        return survey.measure(plan)
