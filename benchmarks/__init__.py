"""Scripts whose results are in ``results/`` and ``docs/``; a package, for another one is also called benchmarks."""
