"""What a study asks: nested frozen dataclasses, read from TOML and the command line by cyclopts (see ``cli.py``).

Everything that changes a result is in :class:`Run`; where it is computed, and from which folder the data come, is not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from idealgroups.errors import IdealGroupsError

from .variants import parse

SCHEMA = 1
"""Part of every run's hash: raise it when the meaning of a run changes, and old results are no longer reused."""

EPSILON = 8.0
"""Of a private training, unless another is asked for."""

SWEEP = "sweep"
SWEEP_MEMBERS = ("instance", "channels-2", "channels-4", "channels-8", "channels-16", "channels-32", "layer")
"""Trial and error: uniform c = 1, 2, 4, 8, 16, 32 and C channels per group."""

EXISTING = ("fixed-32", "gcd-32", "channels-16", "min-32-quarter", "sqrt", "layer", "instance", "batch")
STRATEGIES = ("isometric", "block", "hybrid", *EXISTING, SWEEP)
"""The arms of every comparison."""


@dataclass(frozen=True)
class Data:
    """Which images, and how many of them.

    Attributes:
        names: ``digits`` (ships with scikit-learn), ``mnist``, ``fashion``, ``cifar10``, ``cifar100``, or NAME of a
            Keras-style ``NAME.npz`` in the folder; ``NAME-scenes`` makes a segmentation task from the images of NAME,
            ``NAME-noise`` asks for noise that is added to them; ``NAME-patches`` cuts patches of ``size`` voxels a
            side from a volume; ``NAME-boxes`` asks for boxes on the tiles of a folder, see ``tiles.py``;
            ``NAME-clients`` spreads the training images over clients; ``NAME-crops`` cuts them at random;
            ``NAME-table`` and ``NAME-series`` are no images, see ``data.py``.
        folder: where NAME.npz or torchvision's data sets are.
        download: let torchvision fetch what the folder lacks.
        size: resize images to this many pixels on a side, series to this length; 0 leaves them as they are.
        train: training images, drawn once from those left by validation; 0 takes all.
        validation: images held out from the training data, for every choice that is made.
        test: test images; 0 takes all.
    """

    names: tuple[str, ...] = ("digits",)
    folder: str = "data"
    download: bool = False
    size: int = 0
    train: int = 0
    validation: int = 300
    test: int = 0


@dataclass(frozen=True)
class Optimizer:
    """Learning rates to try (none: the optimizer is left out) and weight decay."""

    learning_rates: tuple[float, ...] = ()
    weight_decay: float = 0.0


@dataclass(frozen=True)
class PrivateOptimizer(Optimizer):
    """The same, and the ε that one training may spend."""

    epsilon: float = EPSILON


@dataclass(frozen=True)
class Study:
    """A grid of training runs: networks × data sets × strategies × learning rates × optimizers × seeds.

    Attributes:
        name: names the folder of the results.
        networks: see ``models.NETWORKS``.
        strategies: how the groups are chosen; ``sweep`` stands for the uniform choices it is the best of.
            ``isometric@noise`` or ``@pink`` plans on noise instead of training images, ``isometric@delta=1`` with
            another tolerance; see ``variants.py``.
        seeds: every learning rate is trained with these, and each strategy's best rate is chosen from them.
        final_seeds: then only the best rate of each strategy is trained with these as well; the comparison is theirs.
        tested: strategies whose best rate is trained with ``tested_seeds`` too, for tests need more seeds than
            means do: a paired permutation test of n seeds cannot give less than p = 2 / 2^n.
        tested_seeds: see there.
        epochs: passes over the training images, under one cosine schedule.
        tuning_epochs: the same where learning rates are chosen; 0: ``epochs``. Shorter ones save most of a long study's
            time. ``final_seeds`` must then hold every seed that is compared, for no tuning run is one of them.
        batch_size: images a step.
        flip: mirror half of the training images left to right.
        data: the images.
        sgd: SGD with momentum 0.9.
        adamw: AdamW with torch's betas.
        dp_sgd: private SGD by Opacus, without momentum; see ``private.py``.
        fedavg: federated averaging by Flower of clients with SGD; epochs are rounds; see ``federated.py``.
    """

    name: str = "digits"
    networks: tuple[str, ...] = ("mlp3", "plain9")
    strategies: tuple[str, ...] = STRATEGIES
    seeds: tuple[int, ...] = (0,)
    final_seeds: tuple[int, ...] = (0, 1, 2)
    tested: tuple[str, ...] = ("isometric", "block", "hybrid", "fixed-32")
    tested_seeds: tuple[int, ...] = ()
    epochs: int = 3
    tuning_epochs: int = 0
    batch_size: int = 32
    flip: bool = False
    data: Data = field(default_factory=Data)
    sgd: Optimizer = field(default_factory=lambda: Optimizer((0.01, 0.03, 0.1, 0.3)))
    adamw: Optimizer = field(default_factory=Optimizer)
    dp_sgd: PrivateOptimizer = field(default_factory=PrivateOptimizer)
    fedavg: Optimizer = field(default_factory=Optimizer)

    def __post_init__(self) -> None:
        for strategy in self.strategies:
            if strategy not in (SWEEP, "batch"):
                parse(strategy)
        for name in ("networks", "strategies", "seeds"):
            if not getattr(self, name):
                raise IdealGroupsError(f"the study {self.name!r} has no {name}; give at least one.")
        rates = [rate for one in (self.sgd, self.adamw, self.dp_sgd, self.fedavg) for rate in one.learning_rates]
        if not rates:
            raise IdealGroupsError(
                "the study has no learning rates; set learning_rates of sgd, adamw, dp_sgd or fedavg."
            )
        if min(rates) <= 0:
            raise IdealGroupsError("learning rates must be positive.")
        if self.epochs < 1 or self.batch_size < 1:
            raise IdealGroupsError("epochs and batch_size must be at least 1.")
        if self.tuning_epochs < 0:
            raise IdealGroupsError("tuning_epochs must be at least 1, or 0 for as many as epochs.")
        if self.data.validation < 1:
            raise IdealGroupsError(
                "data.validation must be at least 1: learning rates are chosen on validation images."
            )


@dataclass(frozen=True)
class Images:
    """One data set as a run sees it; the fields are those of :class:`Data`."""

    name: str
    size: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Arm:
    """Everything strategies share when they are compared: one row of tables, one panel of plots."""

    network: str
    images: Images
    optimizer: str
    weight_decay: float
    batch_size: int
    epochs: int
    flip: bool

    def __str__(self) -> str:
        pixels = f" {self.images.size} px" if self.images.size else ""
        return f"{self.network}, {self.images.name}{pixels}, {self.optimizer}, batch {self.batch_size}"


@dataclass(frozen=True)
class Run:
    """One training run. Equal runs give equal results on the same machine, so the hash of a run is its identity."""

    arm: Arm
    strategy: str
    learning_rate: float
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Run:
        """The inverse of :meth:`to_dict`."""
        arm = Arm(**{**data["arm"], "images": Images(**data["arm"]["images"])})
        return cls(**{**data, "arm": arm})

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of the SHA-256 of the run's canonical JSON."""
        text = json.dumps([SCHEMA, self.to_dict()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.arm}, {self.strategy}, learning rate {self.learning_rate:g}, seed {self.seed}"
