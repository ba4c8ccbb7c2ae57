"""The evidence: grids of training runs on real data that confirm or refute the choice of groups.

One concept per file. What is asked: ``config``, ``data`` and ``scenes``, ``models``, ``grid``. What is done:
``planned`` (groups), ``train`` (one run), ``execute`` (all runs, resumable), ``engines`` and ``ray_engine`` (where),
``store`` (JSON lines). What came out: ``choice``, ``stats``, ``analysis``, ``tables``, ``figures``, ``report``. And
``cli``, the command line.
"""
