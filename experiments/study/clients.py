"""Training images that are spread over clients who differ: by label, or by the family of a font."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from idealgroups.errors import IdealGroupsError

SUFFIX = "-clients"
"""End of the names of data sets whose training images belong to clients."""

CLIENTS = 50
CONCENTRATION = 0.3
"""Of the Dirichlet distribution that spreads a label over clients (Hsu et al. 2019); the smaller, the more differ."""


def by_label(labels: NDArray[Any], rng: np.random.Generator) -> NDArray[np.int64]:
    """The client of every image: the images of each label are spread in shares drawn from a Dirichlet distribution.

    >>> clients = by_label(np.repeat(np.arange(10), 100), np.random.default_rng(0))
    >>> clients.shape, int(clients.min()) >= 0, int(clients.max()) < CLIENTS
    ((1000,), True, True)
    """
    clients = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(CLIENTS, CONCENTRATION))
        ends = np.round(np.cumsum(shares) * len(rows)).astype(np.int64)
        clients[rows] = np.searchsorted(ends, np.arange(len(rows)), side="right").clip(max=CLIENTS - 1)
    return clients


def by_family(families: NDArray[Any]) -> NDArray[np.int64]:
    """The client of every image: families in the order of their numbers, as many for one client as for another.

    >>> by_family(np.repeat(np.arange(100), 2))[[0, 3, 4, -1]].tolist()
    [0, 0, 1, 49]
    """
    names, index = np.unique(families, return_inverse=True)
    if len(names) < CLIENTS:
        raise IdealGroupsError(f"there are {len(names)} families, too few for {CLIENTS} clients.")
    return (index * CLIENTS // len(names)).astype(np.int64)
