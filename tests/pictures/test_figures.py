"""What a figure shows: the words, the lines and the bars that are in it."""

from __future__ import annotations

import dataclasses
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import idealgroups as ig
from idealgroups.records import Gradients, Site, WeightGradient

pytest.importorskip("matplotlib")

from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from idealgroups.pictures.curves import _name_factors
from idealgroups.pictures.figures import measurement_figure, plan_figure
from idealgroups.pictures.groups import _Colors
from idealgroups.pictures.style import AFTER, BEFORE, DARK, PAPER, to_svg


def gradients(*logs: float, head: float | None = None) -> Gradients:
    layers = [WeightGradient(name=f"stage{i}.conv.weight", relative=math.exp(log)) for i, log in enumerate(logs)]
    if head is not None:
        layers.append(WeightGradient(name="head.weight", relative=math.exp(head), in_line=False))
    return Gradients(layers=tuple(layers))


def site(name: str, channels: int, groups: int, before: int | None = None, residual: float | None = None) -> Site:
    return Site(
        name=name,
        kind="BatchNorm2d",
        num_channels=channels,
        positions=64,
        groups_before=before,
        ideal=groups,
        num_groups=groups,
        gain=0.1,
        residual=residual,
    )


PLAN = ig.Plan(
    model="net",
    strategy="isometric",
    input="8x3x8x8",
    seed=0,
    sites=(site("stage0.norm", 64, 1), site("stage1.norm", 64, 32, 16), site("stage2.norm", 64, 8)),
    before=gradients(1.0, 0.0, -1.0, head=3.0),
    after=gradients(0.5, 0.0, -0.5, head=3.0),
    lowest_trend=-1.0,
)


def words(figure: Figure) -> list[str]:
    found = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        legend = axes.get_legend()
        found += [text.get_text() for text in legend.get_texts()] if legend else []
    return found


def test_a_plan_shows_both_trends_the_limit_and_the_stages() -> None:
    figure = PLAN.plot()
    said = words(figure)
    assert "before: trend −2.00" in said
    assert "with the plan: trend −1.00" in said
    assert "good: a trend of −1.00 to +0.25" in said
    assert "hollow: not in the trend" in said
    assert {"stage0", "stage1", "stage2", "head"} <= set(said)
    assert any(text.startswith("Good: the solid line") for text in said)


def test_lines_and_fan_go_through_the_layers_of_the_trend_alone() -> None:
    top = PLAN.plot().axes[0]
    lines = {line.get_label(): line for line in top.lines}
    after = lines["with the plan: trend −1.00"]
    assert (after.get_xdata()[0], after.get_xdata()[-1]) == (0, 2)  # the head, at 3, is not in it
    assert after.get_ydata() == pytest.approx([0.5, -0.5])
    (fan,) = [one for one in top.collections if str(one.get_label()).startswith("good")]
    corners = {(round(float(x), 3), round(float(y), 3)) for x, y in fan.get_paths()[0].vertices}
    assert {(0, 0.5), (0, -0.125), (2, -0.5), (2, 0.125), (1, 0)} <= corners


def test_a_bar_is_as_high_as_its_groups_and_colored_by_its_group_size() -> None:
    bottom = PLAN.plot().axes[1]
    bars = [patch for patch in bottom.patches if patch.get_height() > 0]
    assert [bar.get_y() + bar.get_height() for bar in bars] == pytest.approx([0, 5, 3])  # log2 of 1, 32, 8
    colors = _Colors([64, 2, 8])
    assert [bar.get_facecolor() for bar in bars] == [colors.of(64), colors.of(2), colors.of(8)]
    ticks = [line.get_ydata()[0] for line in bottom.lines if len(line.get_ydata()) and line.get_linewidth() == 1.8]
    assert ticks == [4]  # 16 groups before


def test_colors_are_ordered_by_lightness() -> None:
    colors = _Colors([1, 2, 4, 8, 16, 32])
    lightness = [0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue, _ in map(colors.of, colors.sizes)]
    assert lightness == sorted(lightness)
    assert _Colors([7]).of(7)[3] == 1
    assert [patch.get_label() for patch in _Colors(list(range(1, 40))).legend(3)] == ["group size 1", "20", "39"]


def luminance(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgba(color)[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_lines_have_the_contrast_that_graphics_need(dark: bool) -> None:
    """WCAG 2.2 asks for 3 : 1."""
    paper = luminance(DARK[PAPER] if dark else PAPER)
    for color in (BEFORE, AFTER):
        line = luminance(DARK[color] if dark else color)
        assert (max(line, paper) + 0.05) / (min(line, paper) + 0.05) >= 3


def test_a_plan_that_was_not_measured_and_one_without_a_trend() -> None:
    unmeasured = dataclasses.replace(PLAN, before=None, after=None).plot()
    assert any(text.startswith("Nothing was measured") for text in words(unmeasured))
    short = dataclasses.replace(PLAN, before=gradients(1.0, head=2.0), after=gradients(0.5, head=2.0))
    said = words(short.plot())
    assert "with the plan: too few layers for a trend" in said
    assert any(text.startswith("There is no trend") for text in said)


def test_a_calibrated_plan_shows_residuals() -> None:
    sites = tuple(dataclasses.replace(one, residual=0.01 * i) for i, one in enumerate(PLAN.sites, 1))
    figure = dataclasses.replace(PLAN, sites=sites, after=None, calibrated_on=64, output_residual=0.08).plot()
    top = figure.axes[0]
    assert [bar.get_height() for bar in top.patches] == pytest.approx([0.01, 0.02, 0.03])
    assert "residual of the network's output: 0.080" in words(figure)
    assert top.get_ylim()[0] == 0 < 0.08 < top.get_ylim()[1]


@pytest.mark.parametrize("bad", [0.0, math.inf, math.nan])
def test_a_gradient_that_is_no_number_leaves_a_gap(bad: float) -> None:
    layers = (*gradients(1.0, 0.0, -1.0).layers, WeightGradient(name="dead.weight", relative=bad))
    measured = ig.Measurement(model="net", input="2", seed=0, gradients=Gradients(layers=layers))
    figure = measured.plot()
    figure.canvas.draw()
    assert all(map(math.isfinite, figure.axes[0].get_ylim()))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.1, 0.1, ["×0.3", "×1", "×3"]),
        (-2.5, 2.5, ["×0.1", "×0.3", "×1", "×3", "×10"]),
        (-7.0, 7.0, ["×0.001", "×0.01", "×0.1", "×1", "×10", "×100", "×1000"]),
    ],
)
def test_the_axis_names_factors(low: float, high: float, expected: list[str]) -> None:
    axes = Figure().add_subplot()
    _name_factors(axes, low, high, "u")
    axes.figure.canvas.draw()
    labels = sorted(axes.get_yticklabels(), key=lambda label: label.get_position()[1])
    assert [label.get_text() for label in labels] == expected


def test_before_and_after_are_judged_by_the_limit_of_the_plan() -> None:
    pair = [
        (title, ig.Measurement(model="net", input="2", seed=0, gradients=one))
        for title, one in (("before", gradients(2.0, 0.0, -2.0)), ("after", gradients(0.4, 0.0, -0.4)))
    ]
    assert "good: a trend of −1.00 to +0.25" in words(measurement_figure(pair, -1.0))
    assert "isometric: a trend of −0.25 to +0.25" in words(measurement_figure(pair))


def test_a_private_plan_draws_v() -> None:
    after = Gradients(layers=gradients(0.5, 0.0, -0.5).layers, optimizer="dp-sgd")
    figure = dataclasses.replace(PLAN, optimizer="dp-sgd", before=None, after=after).plot()
    assert figure.axes[0].get_ylabel() == "gradient per weight, v"


def test_a_comparison_has_a_row_for_each_strategy_and_marks_the_one_to_take() -> None:
    other = dataclasses.replace(PLAN, strategy="fixed-32", lowest_trend=None, after=gradients(3.0, 0.0, -3.0))
    compared = ig.Comparison((PLAN, other))
    left = compared.plot().axes[0]
    assert [(label.get_text(), label.get_fontweight()) for label in left.get_yticklabels()] == [
        ("isometric", "bold"),
        ("fixed-32", "normal"),
    ]
    dots = [line for line in left.lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == pytest.approx([-1.0, -6.0])
    assert [dot.get_markerfacecolor() for dot in dots] == [AFTER, PAPER]  # hollow outside the band


def test_a_comparison_is_a_sequence_of_plans() -> None:
    other = dataclasses.replace(PLAN, strategy="fixed-32", lowest_trend=None)
    compared = ig.Comparison((PLAN, other))
    assert (len(compared), compared[1], compared[:1], list(compared)) == (2, other, (PLAN,), [PLAN, other])
    assert compared.best is PLAN
    assert "take isometric" in str(compared)
    with pytest.raises(ig.IdealGroupsError, match="at least one strategy"):
        ig.Comparison(())


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_files_are_written_and_the_same_twice(tmp_path: Path, ending: str) -> None:
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    PLAN.plot(first)
    PLAN.plot(second)
    assert first.stat().st_size > 1000
    if ending == "svg":
        assert first.read_text() == second.read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.xyz", "cannot draw .*a.xyz: end the name in"), ("nowhere/a.png", "there is no folder .*nowhere; make it")],
)
def test_a_bad_target_is_one_sentence(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ig.IdealGroupsError, match=message):
        PLAN.plot(tmp_path / name)
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ig.IdealGroupsError, match=r"cannot write .*a\.png"):
        PLAN.plot(tmp_path / "a.png")


def test_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    odd = dataclasses.replace(PLAN, model="a$x$<b>&_^{", sites=(site("n$orm$_{1}", 8, 2),), before=None, after=None)
    svg = to_svg(plan_figure(odd))
    assert "a$x$<b>&_^{ on 8x3x8x8, isometric" in "".join(ET.fromstring(svg).itertext())
    assert not re.search(r"#d55e00(?!\))", svg)


def test_a_notebook_gets_a_picture() -> None:
    assert PLAN.plot()._repr_png_().startswith(b"\x89PNG")


def shown_texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def many_layers(name: str) -> ig.Plan:
    names = [f"{name}{i // 9}.{i % 9}" for i in range(54)]
    layers = tuple(WeightGradient(name=f"{one}.conv.weight", relative=math.exp(-i / 9)) for i, one in enumerate(names))
    return dataclasses.replace(
        PLAN,
        model="library:a_network_with_a_very_long_name_of_many_words_and_options",
        sites=tuple(site(f"{one}.norm", 256, 2 ** (i % 9)) for i, one in enumerate(names)),
        before=Gradients(layers=layers),
        after=Gradients(layers=layers),
    )


@pytest.mark.parametrize("name", ["layer", "a_block_with_a_long_name."])
def test_all_text_is_inside_the_picture_and_large_enough_for_a_phone(name: str) -> None:
    plan = many_layers(name)
    before = plan.before
    assert before is not None
    measured = ig.Measurement(model=plan.model, input="8x3x224x224", seed=0, gradients=before)
    strategies = ("isometric", "uniform-group-size", "fixed-32")
    compared = ig.Comparison(tuple(dataclasses.replace(plan, strategy=strategy) for strategy in strategies))
    fitted = tuple(dataclasses.replace(one, residual=0.0003 * i) for i, one in enumerate(plan.sites))
    calibrated = dataclasses.replace(plan, sites=fitted, after=None, calibrated_on=64, output_residual=0.0177)
    for figure in (plan.plot(), measured.plot(), compared.plot(), calibrated.plot()):
        figure.draw_without_rendering()
        for text in shown_texts(figure):
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text.get_text()
            assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text.get_text()
            assert text.get_fontsize() / 72 * 390 / figure.get_figwidth() > 7  # pixels on a screen 390 wide


@pytest.mark.parametrize("picture", ["initialization", "plan"])
def test_the_letters_of_the_pictures_in_the_documents_are_large_enough_for_a_phone(picture: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / f"{picture}.svg").read_text(encoding="utf-8")
    width = float(re.search(r'viewBox="0 0 ([\d.]+) ', text)[1])
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ?([\d.]+)px", text)]
    assert sizes
    assert min(sizes) / width * 390 > 7  # pixels on a screen 390 wide
