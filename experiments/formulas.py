"""Where the closed forms of ``theory.py`` hold, and where not: the tables of ``docs/formulas.md``.

    python -m experiments.formulas            # about a minute on one core

Everything is simulated or measured here; nothing is copied from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from experiments.common.first_rule import trend
from experiments.common.markdown import table
from idealgroups.synthetic import synthetic
from idealgroups.theory.curves import Moments, curves, group_variance, kept_share, log_amplification
from idealgroups.theory.formulas import (
    RELU_MEAN_SHARE,
    conv_gain,
    fc_gain,
    gaussian_gain,
    next_mean_share,
    pooled_projection_loss,
)
from idealgroups.theory.grouping import most_groups_within


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row] for row in rows]
    print(f"\n**{title}**\n\n{table(header, cells)}")


def percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


# --- simulation ------------------------------------------------------------------------------------------------------


def fully_connected(rng: np.random.Generator) -> None:
    rows = []
    for m in (4, 5, 6, 8, 12, 16, 32, 64, 128, 512):
        z = rng.normal(size=(6_000_000 // m, m))
        inverse = (1 - 2 / m) / z.var(axis=1)
        simulated, noise = inverse.mean(), inverse.std() / math.sqrt(len(inverse))
        predicted = math.exp(fc_gain(m))
        rows.append((m, predicted, float(simulated), percent(predicted / simulated - 1), percent(noise / simulated)))
    show("Fully connected: exp(b)", ("m", "(m−2)/(m−3)", "simulated", "error", "standard error"), rows)


def first_within(error: dict[int, float], limit: float) -> str:
    """Smallest key from which on every error is within ``limit``."""
    keys = sorted(error)
    good = [k for k in keys if all(abs(error[j]) <= limit for j in keys if j >= k)]
    return str(good[0]) if good else f"> {keys[-1]}"


def convolution(rng: np.random.Generator) -> None:
    rows, limits = [], []
    for rho in (0.1, RELU_MEAN_SHARE, 0.5, 0.75):
        for c in (1, 2, 4, 8, 16, 64):
            var = 1 - rho + rho * rng.normal(size=(3_000_000 // c, c)).var(axis=1)
            simulated = float((1 / var).mean())
            closed, exact = math.exp(conv_gain(c, rho)), math.exp(gaussian_gain(c, math.inf, rho))
            errors = [percent(value / simulated - 1) for value in (closed, exact)]
            rows.append((f"{rho:.2f}", c, simulated, closed, errors[0], exact, errors[1]))
        widths = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256]
        error = {c: math.expm1(conv_gain(c, rho) - gaussian_gain(c, math.inf, rho)) for c in widths}
        limits.append((f"{rho:.2f}", percent(min(error.values())), *(first_within(error, e) for e in (0.05, 0.01))))
    header: tuple[str, ...] = ("ρ", "c", "simulated", "closed form", "error", "`gaussian_gain`", "error")
    show("Convolution, many positions: exp(b)", header, rows)
    header = ("ρ", "worst error (beyond c = 1)", "within 5 % from c =", "within 1 % from c =")
    show("The closed form −log(1 − ρ/c) is exact at c = 1, and then again", header, limits)


def few_positions(rng: np.random.Generator) -> None:
    rows = []
    for c in (1, 2, 4, 8, 16):
        row: list[object] = [c]
        for s in (4, 9, 16, 49, 196, 784):
            rho = RELU_MEAN_SHARE
            n = 4_000_000 // (c * s)
            z = math.sqrt(rho) * rng.normal(size=(n, c, 1)) + math.sqrt(1 - rho) * rng.normal(size=(n, c, s))
            simulated = float((1 / z.reshape(n, -1).var(1)).mean()) * (1 - 2 / (c * s))
            closed, exact = math.exp(conv_gain(c, rho)), math.exp(gaussian_gain(c, s, rho))
            row.append(f"{percent(closed / simulated - 1)} ({percent(exact / simulated - 1)})")
        rows.append(row)
    header: tuple[str, ...] = ("c", *(f"S = {s}" for s in (4, 9, 16, 49, 196, 784)))
    show("Few independent positions, ρ = 1/π: error of `conv_gain` (of `gaussian_gain`)", header, rows)


def few_channels(rng: np.random.Generator) -> None:
    rows = []
    for channels in (8, 16, 32, 64, 256):
        row: list[object] = [channels]
        rho, n = RELU_MEAN_SHARE, 4_000_000 // channels
        means = math.sqrt(rho) * rng.normal(size=(n, channels))
        whole = 1 - rho + means.var(1, keepdims=True)
        for c in (1, 2, 4, 8, 16):
            if c > channels:
                row.append("")
                continue
            simulated = float((whole / (1 - rho + means.reshape(n, -1, c).var(-1))).mean())
            exact = gaussian_gain(c, math.inf, rho) - gaussian_gain(channels, math.inf, rho)
            closed = conv_gain(c, rho, channels)
            row.append(f"{percent(math.exp(closed) / simulated - 1)} ({percent(math.exp(exact) / simulated - 1)})")
        rows.append(row)
    header: tuple[str, ...] = ("C", *(f"c = {c}" for c in (1, 2, 4, 8, 16)))
    show("Few channels in all, ρ = 1/π: error of `conv_gain` (of the difference of two `gaussian_gain`)", header, rows)


def pooled(rng: np.random.Generator) -> None:
    rows = []
    for rho in (0.0, RELU_MEAN_SHARE, 0.6):
        for c in (1, 2, 4, 8, 32):
            n, s = 16384 // c, 256
            z = math.sqrt(rho) * rng.normal(size=(n, c, 1)) + math.sqrt(1 - rho) * rng.normal(size=(n, c, s))
            mean = z.mean((1, 2), keepdims=True)
            d = np.zeros_like(z)
            d[:, 0] = z[:, 0] > mean[:, 0]  # one channel read at a time: cross terms average out for random readouts
            moments = Moments(z.mean(-1), z.var(-1), s, 0.0, d.sum(-1), (d**2).sum(-1), (d * z).sum(-1))
            removed = 1 - kept_share([moments], c)
            errors = [percent(-math.expm1(-pooled_projection_loss(c, mean_share=r)) / removed - 1) for r in (0.0, rho)]
            rows.append((f"{rho:.2f}", c, f"{removed:.4f}", *errors))
    header: tuple[str, ...] = ("ρ", "c", "removed", "error of 0.82/c", "error with `mean_share=ρ`")
    show("Gradient in front of GN–ReLU–global pool: share removed by the projections", header, rows)


# --- real networks ---------------------------------------------------------------------------------------------------


def group_norms(model: nn.Module) -> dict[str, nn.GroupNorm]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.GroupNorm)}


def set_width(model: nn.Module, c: int) -> None:
    """``c`` channels a group in every layer, or one group where there are fewer."""
    for norm in group_norms(model).values():
        norm.num_groups = max(1, norm.num_channels // c)


@dataclass
class Layer:
    """A convolution in one pass: log u, and what it should be from norms and coherence alone (see docs/formulas.md)."""

    log_u: float
    predicted: float
    without_coherence: float


def observe(model: nn.Module, x: Tensor, seed: int = 0) -> tuple[list[Moments], list[Layer]]:
    """Moments of every GN layer and every convolution's relative gradient, for a random projection of the output."""
    kept: dict[nn.Module, Moments] = {}
    seen: dict[nn.Conv2d, dict[str, float]] = {}

    def after_norm(norm: nn.GroupNorm, args: tuple[Tensor, ...], y: Tensor) -> None:
        z = args[0].detach().flatten(2).double().numpy()

        def save(gradient: Tensor) -> None:
            d = gradient.flatten(2).double().numpy()  # γ is 1 at initialization
            sums = d.sum(-1), (d**2).sum(-1), (d * z).sum(-1)
            kept[norm] = Moments(z.mean(-1), z.var(-1), z.shape[-1], norm.eps, *sums)

        y.register_hook(save)  # type: ignore[no-untyped-call]

    def after_conv(conv: nn.Conv2d, args: tuple[Tensor, ...], y: Tensor) -> None:
        x = args[0].detach().flatten(2)
        square = float(x.square().sum())
        shares = {
            "input": square / x.shape[0] / x.shape[2],
            "rho": float(x.mean(-1).square().sum()) * x.shape[2] / square,
        }

        def save(gradient: Tensor) -> None:
            d = gradient.flatten(2)
            total = float(d.square().sum())
            coherence = float(d.sum(-1).square().sum()) / total  # S·q
            seen[conv] = shares | {"gradient": total, "coherence": coherence}

        y.register_hook(save)  # type: ignore[no-untyped-call]

    handles = [m.register_forward_hook(after_norm) for m in model.modules() if isinstance(m, nn.GroupNorm)]
    handles += [m.register_forward_hook(after_conv) for m in model.modules() if isinstance(m, nn.Conv2d)]
    model.zero_grad()
    out = model(x)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))).sum().backward()
    for handle in handles:
        handle.remove()
    return list(reversed(kept.values())), [_layer(conv, s) for conv, s in reversed(seen.items())]


def _layer(conv: nn.Conv2d, seen: dict[str, float]) -> Layer:
    weight = conv.weight.detach()
    assert conv.weight.grad is not None
    log_size = math.log(float(torch.linalg.vector_norm(weight)))
    log_u = math.log(float(torch.linalg.vector_norm(conv.weight.grad))) - log_size
    white = 0.5 * math.log(seen["gradient"] * seen["input"] * weight[0, 0].numel()) - log_size
    return Layer(log_u, white + 0.5 * math.log1p(seen["rho"] * (seen["coherence"] - 1)), white)


def plain(depth: int = 8, width: int = 64, kernel: int = 3, pool: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        conv = nn.Conv2d(3 if i == 0 else width, width, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight)
        layers += [conv, nn.GroupNorm(1, width), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)] if pool else []
    return nn.Sequential(*layers, *head)


def resnet() -> nn.Module:
    network: nn.Module = torchvision.models.resnet18(norm_layer=lambda channels: nn.GroupNorm(1, channels))
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain, 8 × conv 3×3": (plain, (16, 3, 32, 32)),
    "the same without pool and head": (lambda: plain(pool=False), (16, 3, 32, 32)),
    "ResNet-18": (resnet, (8, 3, 64, 64)),
}
"""{name: (maker, input shape)}. Without the pool the gradient that enters from above has no structure."""


def passes(name: str, c: int, seeds: int = 3) -> Iterator[tuple[list[Moments], list[Layer]]]:
    """One pass a seed of a new network with ``c`` channels a group, on 1/f noise."""
    make, shape = NETWORKS[name]
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = make()
        set_width(model, c)
        yield observe(model, synthetic(shape, seed=seed), seed)


def mean_share_by_depth() -> None:
    width, depth = 64, 8
    rows = []
    for kernel in (1, 3):
        for c in (1, 2, 8, width):
            torch.manual_seed(0)
            model = plain(depth, width, kernel)
            set_width(model, c)
            x = torch.randn(8, 3, 24, 24)
            measured = [curves([m]).mean_share for m in observe(model, x)[0]]
            predicted = [0.0]
            while len(predicted) < depth:
                predicted.append(next_mean_share(predicted[-1], c))
            for name, shares in (("predicted", predicted), ("measured", measured)):
                rows.append((f"{kernel}×{kernel}", c, name, *(f"{share:.2f}" for share in shares)))
    header: tuple[str, ...] = ("kernel", "c", "ρ", *(f"layer {i}" for i in range(1, depth + 1)))
    show("Mean share ρ over depth, plain network on white noise (ρ = 0 at the input)", header, rows)


def real_layers() -> None:
    """Amplification of real layers, against the two formulas with the measured ρ, and weighted by the gradient."""
    rows = []
    for name in ("plain, 8 × conv 3×3", "ResNet-18"):
        for c in (1, 2, 4, 16):
            found = []
            for moments, _ in passes(name, c):
                for m in moments:
                    channels, rho, measured = m.mean.shape[1], curves([m]).mean_share, log_amplification([m], c)
                    exact = gaussian_gain(c, math.inf, rho) - gaussian_gain(channels, math.inf, rho)
                    closed = conv_gain(c, rho, channels)
                    weighted = log_weighted_amplification(m, c) - measured
                    found.append((rho, measured, closed / measured, exact / measured, weighted))
            median, differences = np.median(found, axis=0), np.array(found)[:, -1]
            extremes = (differences.mean(), math.sqrt((differences**2).mean()), np.abs(differences).max())
            rows.append((name, c, *(f"{v:.2f}" for v in median[:4]), *(f"{v:+.3f}" for v in extremes)))
    header: tuple[str, ...] = ("network", "c", "ρ", "amplification", "closed form / measured", "gaussian / measured")
    header += ("weighted − unweighted, mean", "root mean square", "worst")
    show("Layers at initialization, 3 seeds, 1/f noise (medians over layers; log scale)", header, rows)


def log_weighted_amplification(m: Moments, c: int) -> float:
    """log of Σ d²/s² over Σ d²/s_one²: every group counts by the gradient that reaches it."""
    assert m.grad_square is not None
    n = len(m.mean)
    whole = group_variance(m, m.mean.shape[1]) + m.eps
    part = group_variance(m, c) + m.eps
    arriving = m.grad_square.reshape(n, -1, c).sum(-1)
    return float(np.log((arriving / part).sum() / (arriving / whole).sum()))


def weighting_and_choice() -> None:
    """Does it matter for the choice? Most groups within a budget by the one amplification and by the other."""
    rows = []
    for name in ("plain, 8 × conv 3×3", "ResNet-18"):
        for budget in (0.05, 0.15, 0.3):
            factors = []
            for moments, _ in passes(name, 16):
                for m in moments:
                    unweighted = curves([m])
                    weighted = [log_weighted_amplification(m, int(c)) for c in unweighted.group_sizes]
                    other = replace(unweighted, amplification=np.array(weighted))
                    groups = [most_groups_within(one, budget) for one in (unweighted, other)]
                    factors.append(groups[0] / groups[1])
            agree = f"{factors.count(1.0)} of {len(factors)}"
            rows.append((name, budget, agree, f"{min(factors):g} to {max(factors):g}"))
    header: tuple[str, ...] = ("network", "ε", "layers that agree", "ratio of the groups, unweighted / weighted")
    show("Groups within a budget: does the weight of the samples and groups matter?", header, rows)


def what_moves_the_trend() -> None:
    """T against one group's, against the gains b alone, and by the formula with coherence."""
    rows = []
    for name in NETWORKS:
        one_group = 0.0
        for c in (10**6, 16, 8, 4, 2, 1):
            found = []
            for moments, layers in passes(name, c):
                gains = [
                    float(curve.gain[curve.at(max(1, curve.num_channels // c))])
                    for curve in (curves([m]) for m in moments)
                ]
                above = np.array([sum(gains[i + 1 :]) / 2 for i in range(len(gains))])
                by_formula = [
                    trend(np.array([getattr(x, key) for x in layers])) for key in ("predicted", "without_coherence")
                ]
                found.append((trend(np.array([x.log_u for x in layers])), trend(above), *by_formula))
            measured, gain, formula, white = np.mean(found, axis=0)
            one_group = measured if c == 10**6 else one_group
            change = "" if c == 10**6 else f"{measured - one_group:+.2f}"
            row = (name, "all" if c == 10**6 else c, f"{measured:+.2f}", change, "" if c == 10**6 else f"{gain:+.2f}")
            rows.append((*row, f"{formula:+.2f}", f"{white:+.2f}"))
    header: tuple[str, ...] = (
        "network",
        "c",
        "T",
        "change against one group",
        "predicted by Σ b/2 of the layers above",
    )
    header += ("T by the formula for u", "without its coherence")
    show("What moves the trend T of log u over the convolutions", header, rows)


def what_one_layer_costs() -> None:
    """The change of T when one layer alone goes from four channels a group to one, by the place of that layer."""
    rows = []
    for name, (make, shape) in NETWORKS.items():
        found = []
        for seed in range(3):
            torch.manual_seed(seed)
            model, x = make(), synthetic(shape, seed=seed)
            norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
            set_width(model, 4)
            moments, layers = observe(model, x, seed)
            before = trend(np.array([layer.log_u for layer in layers]))
            count = len(layers)
            for below, (norm, own) in enumerate(zip(norms, moments, strict=True)):
                curve = curves([own])
                added = float(curve.amplification[0] - curve.amplification[curve.at(norm.num_groups)])
                norm.num_groups = norm.num_channels
                after = trend(np.array([layer.log_u for layer in observe(model, x, seed)[1]]))
                norm.num_groups = norm.num_channels // 4
                found.append((below / count, after - before, trend(np.where(np.arange(count) < below, added / 2, 0.0))))
        thirds = [[row for row in found if i / 3 <= row[0] < (i + 1) / 3] for i in range(3)]
        for place, part in zip(("first", "middle", "last"), thirds, strict=True):
            _, measured, predicted = np.mean(part, axis=0)
            rows.append((name, f"{place} third", f"{measured:+.2f}", f"{predicted:+.2f}"))
    header: tuple[str, ...] = ("network", "one layer in the", "change of T", "predicted from its amplification")
    show("What one layer of c = 1 among layers of c = 4 costs the trend T, by its place", header, rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    fully_connected(generator)
    convolution(generator)
    few_positions(generator)
    few_channels(generator)
    pooled(generator)
    mean_share_by_depth()
    real_layers()
    weighting_and_choice()
    what_moves_the_trend()
    what_one_layer_costs()
