"""The command line: load, call, print. Torch is imported when a command runs, so that help and version do not wait."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

import idealgroups

from ..errors import IdealGroupsError
from ..extras import require
from ..text import for_encoding, for_output, output_width, paragraph

if TYPE_CHECKING:
    from torch import nn

app = App(
    name="idealgroups",
    help="The ideal number of groups for every normalization layer of a network, from theory, without training.",
    version=lambda: idealgroups.__version__,
)
app.register_install_completion_command()

Model = Annotated[
    str,
    Parameter(
        help="torchvision:NAME, timm:NAME, FILE.py:FACTORY or package.module:FACTORY. "
        "A factory returns a model, or (model, example_inputs) if it takes several inputs."
    ),
]
Arg = Annotated[
    list[str] | None,
    Parameter(
        name="--arg",
        negative="",
        help="An argument of the builder or factory, as in num_classes=10. Repeat it for several.",
    ),
]
Input = Annotated[
    str | None,
    Parameter(
        name="--input",
        help="Sizes of one sample, without the batch, as in 3x128x128. Default: the model's own, else 3x224x224.",
    ),
]
Batch = Annotated[int, Parameter(help="Number of samples in the synthetic batch.")]
Seed = Annotated[int, Parameter(help="Of the weights, the input and the loss. The same seed gives the same plan.")]
Kind = Annotated[str, Parameter(help="pink: 1/f noise with a mean for each image, like photographs. noise: white.")]
Device = Annotated[str | None, Parameter(help="Where to compute, as in cuda or cuda:1. Default: the CPU.")]
Optimizer = Annotated[
    Literal["sgd", "dp-sgd", "adam"], Parameter(help="What trains the network, so whose steps are balanced.")
]
Plot = Annotated[Path | None, Parameter(help="Draw what was found to this PNG, SVG or PDF file.")]
Wide = Annotated[bool, Parameter(negative="", help="Show the columns ideal, gain, positions and kind too.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object and nothing else.")]


@app.command(name="plan")
def plan_command(
    model: Model,
    /,
    *,
    arg: Arg = None,
    strategy: Annotated[str, Parameter(help="isometric, uniform, block, or a baseline.")] = "isometric",
    optimizer: Optimizer = "sgd",
    input_shape: Input = None,
    batch: Batch = 8,
    seed: Seed = 0,
    data: Kind = "pink",
    device: Device = None,
    repeat: Annotated[
        int, Parameter(help="Plan so many times, each with other inputs, and show each layer's range instead.")
    ] = 1,
    save: Annotated[Path | None, Parameter(help="Write the plan as JSON to this file.")] = None,
    plot: Plot = None,
    report: Annotated[Path | None, Parameter(help="Write a page for the browser to this HTML file.")] = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """Print the ideal number of groups of every normalization layer."""
    from ..api import plan
    from ..tables import plan_text, trends_of
    from ..theory.strategies import parse_strategy
    from ..verdict import to_leave

    if save is not None and not save.parent.is_dir():
        raise IdealGroupsError(f"cannot write the plan to {save}: there is no folder {save.parent}; make it first.")
    _check_plot(plot)
    _check_report(report)
    if repeat != 1:
        if (save, plot, report) != (None, None, None):
            raise IdealGroupsError("--repeat makes several plans; leave out --save, --plot and --report.")
        _print_ranges(model, arg, strategy, input_shape, batch, seed, data, device, optimizer, repeat)
        return
    made = None
    if parse_strategy(strategy).closed:
        # What cannot be built or run without values is built with them.
        with contextlib.suppress(Exception):
            network, inputs, name = _network(model, arg, input_shape, batch, seed, data, None, values=False)
            made = plan(network, inputs, strategy=strategy, optimizer=optimizer, seed=seed, name=name)
    if made is None:
        network, inputs, name = _network(model, arg, input_shape, batch, seed, data, device)
        made = plan(network, inputs, strategy=strategy, optimizer=optimizer, seed=seed, name=name)
    if save is not None:
        made.save(save)
    if plot is not None:
        made.plot(plot)
    if report is not None:
        made.save_report(report)
    if as_json:
        sys.stdout.write(made.to_json() + "\n")
        return
    _print(plan_text(made, wide=wide))
    for file in (plot, report):
        if file is not None:
            _print(f"written: {file}")
    if to_leave(trends_of(made)):
        return
    where = f'ig.Plan.load("{save}")' if save is not None else "ig.plan(model, example_inputs)"
    _print(
        f"\nApply it in Python, before training:\n    import idealgroups as ig\n    model = ig.apply(model, {where})"
    )


def _print_ranges(
    model: str,
    arg: Sequence[str] | None,
    strategy: str,
    shape: str | None,
    batch: int,
    seed: int,
    data: str,
    device: str | None,
    optimizer: Literal["sgd", "dp-sgd", "adam"],
    times: int,
) -> None:
    from ..repeats import repeat

    network, _, _ = _network(model, arg, shape, batch, seed, data, device)

    def inputs_of(one: int) -> Any:
        return _network(model, arg, shape, batch, one, data, device)[1]

    _print(str(repeat(network, inputs_of, times, strategy=strategy, optimizer=optimizer, seed=seed)))


@app.command(name="convert")
def convert_command(
    model: Model,
    /,
    *,
    weights: Annotated[Path, Parameter(help="The trained weights: a state_dict of torch.save or safetensors.")],
    data: Annotated[Path, Parameter(help="A folder with images (or .npy arrays, one sample each) to calibrate on.")],
    save: Annotated[Path, Parameter(help="Write the converted weights to this file, and the plan to FILE.plan.json.")],
    arg: Arg = None,
    strategy: Annotated[str, Parameter(help="faithful, or any strategy of plan.")] = "faithful",
    input_shape: Input = None,
    samples: Annotated[int, Parameter(help="How many samples to calibrate on at most.")] = 256,
    mean: Annotated[str | None, Parameter(help="Of each channel, joined by commas. Default: ImageNet's.")] = None,
    std: Annotated[str | None, Parameter(help="Of each channel, joined by commas. Default: ImageNet's.")] = None,
    seed: Seed = 0,
    device: Device = None,
    wide: Wide = False,
    as_json: Json = False,
) -> None:
    """Convert a trained network to group norm so that it keeps what it knows. No labels, no training."""
    import torch

    from ..api import convert
    from ..sandbox.generators import check_seed
    from ..tables import plan_text
    from .convert import load_weights, read_folder
    from .networks import load_model, parse_device, parse_keywords, parse_shape

    if not save.parent.is_dir():
        raise IdealGroupsError(f"cannot write to {save}: there is no folder {save.parent}; make it first.")
    if samples < 2:
        raise IdealGroupsError(f"--samples must be at least 2, got {samples}.")
    check_seed(seed)
    place = parse_device("cpu" if device is None else device)
    with contextlib.redirect_stdout(sys.stderr):  # what a factory prints is not our output
        spec = load_model(model, seed, parse_keywords(arg or ()))
    load_weights(spec.model, weights)
    shape = spec.shape if input_shape is None else parse_shape(input_shape)
    x = read_folder(data, shape, samples, _numbers(mean), _numbers(std)).to(place)
    batches = [spec.arguments(x[start : start + 32]) for start in range(0, len(x), 32)]
    network, made = convert(spec.model.to(place), batches[0], strategy=strategy, calibrate=batches, seed=seed)
    torch.save(network.cpu().state_dict(), save)
    made.save(save.with_name(save.name + ".plan.json"))
    if as_json:
        sys.stdout.write(made.to_json() + "\n")
        return
    _print(plan_text(made, wide=wide))
    _print(f'\nLoad it in Python:\n    import idealgroups as ig\n    model = ig.restore(model, "{save}")')


def _numbers(text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(map(float, text.split(",")))
    except ValueError:
        raise IdealGroupsError(f"{text!r} is no list of numbers; write them as in 0.485,0.456,0.406.") from None


@app.command(name="measure")
def measure_command(
    model: Model,
    /,
    *,
    arg: Arg = None,
    plan: Annotated[Path | None, Parameter(help="A saved plan: measure before and after, side by side.")] = None,
    input_shape: Input = None,
    batch: Batch = 8,
    seed: Seed = 0,
    data: Kind = "pink",
    device: Device = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Measure the relative gradient of every weight layer, without and with a plan."""
    from ..api import measure
    from ..results import Plan
    from ..tables import measurement_text

    _check_plot(plot)
    loaded = None if plan is None else Plan.load(plan)
    network, inputs, name = _network(model, arg, input_shape, batch, seed, data, device)
    measured = [("before" if loaded else "u", measure(network, inputs, seed=seed, name=name))]
    if loaded:
        measured.append(("after", measure(network, inputs, plan=loaded, seed=seed, name=name)))
    if plot is not None:
        from ..pictures.figures import measurement_figure
        from ..pictures.style import save

        save(measurement_figure(measured, loaded.lowest_trend if loaded else None), plot)
    if as_json:
        _print_json({title: one.to_dict() for title, one in measured} if loaded else measured[0][1].to_dict())
        return
    _print(measurement_text(measured))
    if plot is not None:
        _print(f"written: {plot}")


@app.command(name="compare")
def compare_command(
    model: Model,
    /,
    *,
    arg: Arg = None,
    strategies: Annotated[
        str | None,
        Parameter(help="Names joined by commas, as in isometric,fixed-32. Default: ours and the existing methods."),
    ] = None,
    optimizer: Optimizer = "sgd",
    input_shape: Input = None,
    batch: Batch = 8,
    seed: Seed = 0,
    data: Kind = "pink",
    device: Device = None,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Set the isometric plan beside the existing methods, one row for each strategy."""
    from ..comparison import compare
    from ..theory.strategies import BASELINES

    _check_plot(plot)

    ours = ["isometric", "uniform", "block"]
    names = [*ours, *BASELINES] if strategies is None else strategies.replace(" ", "").split(",")
    network, inputs, name = _network(model, arg, input_shape, batch, seed, data, device)
    plans = compare(network, inputs, names, optimizer=optimizer, seed=seed, name=name)
    if plot is not None:
        plans.plot(plot)
    if as_json:
        _print_json([plan.to_dict() for plan in plans])
        return
    _print(str(plans))
    if plot is not None:
        _print(f"written: {plot}")


def main(arguments: Sequence[str] | None = None, app: App = app) -> None:
    """Run the command line. A user's mistake is one sentence on standard error, with exit code 2."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest, **more: _complain(f"warning: {message}")
        try:
            app(arguments, exit_on_error=False, print_error=False)
        except (IdealGroupsError, CycloptsError) as error:
            _complain(f"idealgroups: {_sentence(error)}")
            raise SystemExit(2) from None
        except BrokenPipeError:
            sys.stderr.close()  # the reader (head, less) has left; Python would complain about its own standard output
            raise SystemExit(0) from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None


def _network(
    model: str,
    arg: Sequence[str] | None,
    shape: str | None,
    batch: int,
    seed: int,
    data: str,
    device: str | None,
    values: bool = True,
) -> tuple[nn.Module, Any, str]:
    from ..measuring.shapes import without_values
    from ..sandbox.generators import check_seed
    from ..synthetic import synthetic
    from .networks import load_model, parse_device, parse_keywords, parse_shape, to_device

    if batch < 1:
        raise IdealGroupsError(f"--batch must be at least 1, got {batch}.")
    wanted = None if shape is None else parse_shape(shape)
    keywords = parse_keywords(arg or ())
    check_seed(seed)
    place = parse_device("cpu" if device is None else device)
    with (
        contextlib.redirect_stdout(sys.stderr),  # what a factory prints is not our output
        contextlib.nullcontext() if values else without_values(),
    ):
        spec = load_model(model, seed, keywords)
    if spec.inputs is not None and wanted is None:
        inputs = spec.inputs
    else:
        try:
            samples = synthetic((batch, *(wanted or spec.shape)), data, seed)
        except (RuntimeError, MemoryError):
            raise IdealGroupsError(
                f"{batch} inputs of {'x'.join(map(str, wanted or spec.shape))} do not fit into memory; make --input or "
                "--batch smaller."
            ) from None
        inputs = spec.arguments(samples)
    if device is not None:
        spec.model.to(place)
        inputs = to_device(inputs, place)
    return spec.model, inputs, spec.name


def _check_plot(path: Path | None) -> None:
    """Refuse a plot that cannot be written, before anything is computed."""
    if path is not None:
        require("matplotlib", "plots", "'idealgroups[plot]'")
        from ..pictures.style import check_target

        check_target(path)


def _check_report(path: Path | None) -> None:
    if path is not None:
        require("matplotlib", "plots", "'idealgroups[plot]'")
        if path.suffix.lower() not in (".html", ".htm"):
            raise IdealGroupsError(f"cannot write the report to {path}: end the name in .html.")
        if not path.parent.is_dir():
            raise IdealGroupsError(
                f"cannot write the report to {path}: there is no folder {path.parent}; make it first."
            )


def _print(text: str) -> None:
    sys.stdout.write(for_output(text) + "\n")


def _complain(text: str) -> None:
    """Print a sentence on standard error: wrapped for a terminal, and one line for a file or a program."""
    shown = paragraph(text, output_width(sys.stderr)) if sys.stderr.isatty() else text
    print(for_encoding(shown, sys.stderr.encoding), file=sys.stderr)


def _print_json(data: Any) -> None:
    sys.stdout.write(json.dumps(data, indent=1, allow_nan=False) + "\n")


def _sentence(error: Exception) -> str:
    if isinstance(error, UnusedCliTokensError):
        extra = ", ".join(error.unused_tokens or ())
        return f"{extra} is too much; an option takes one word: join several with commas, as in isometric,uniform."
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
