"""The records that strategies work on: what is known of a layer, and what was chosen for all of them. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from .curves import Curves

Groups = Mapping[str, int]
"""{layer name: number of groups}."""


@dataclass(frozen=True, kw_only=True)
class WeightShape:
    """Shapes of the weight layer that a normalization belongs to: channels, and positions per channel, in and out."""

    in_channels: int
    out_channels: int
    in_positions: int
    out_positions: int

    @property
    def stride(self) -> float:
        """Positions in over positions out: s² of a convolution with stride s, below 1 for a transposed one."""
        return self.in_positions / self.out_positions

    @property
    def ratio(self) -> float:
        """r = elements in / elements out. Groups of the convolution cancel (``docs/theory.md``, "Block by block")."""
        return self.in_channels / self.out_channels * self.stride


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A normalization layer, known from shapes alone.

    ``positions``: S of the smallest call. ``flat``: every call had one position, as behind a fully connected layer.
    ``weight``: None where the layer belongs to no weight layer.
    """

    name: str
    num_channels: int
    positions: int
    flat: bool = False
    weight: WeightShape | None = None

    @property
    def ratio(self) -> float:
        """r of the weight layer, 1 without one."""
        return self.weight.ratio if self.weight else 1.0


class Measured(Protocol):
    """What a strategy needs to know of one pass."""

    @property
    def curves(self) -> Mapping[str, Curves]:
        """Curves of every layer under the groups of this pass; empty where they were not asked for."""

    @property
    def trend(self) -> float:
        """T under the groups of this pass."""

    @property
    def slack(self) -> float:
        """How far T may fall, for the optimizer whose steps T is about."""


M = TypeVar("M", bound=Measured)

Observe = Callable[[Groups, bool], M]
"""(groups, whether curves are needed) → one forward and backward pass with these groups."""


@dataclass(frozen=True)
class Choice(Generic[M]):
    """The groups that a strategy chose. ``ideals``: the real-valued numbers. ``notes``: why a layer has its number.

    Only strategies that measure have the rest. ``budget``: ε; ``lowest_trend``: how far T was allowed to fall;
    ``measured``: the pass with these groups; ``one_number``: the most groups, the same in all layers, that are
    predicted to keep T as high, or None.
    """

    groups: Groups
    ideals: Mapping[str, float]
    notes: Mapping[str, str] = field(default_factory=dict)
    budget: float | None = None
    lowest_trend: float | None = None
    measured: M | None = None
    one_number: int | None = None
