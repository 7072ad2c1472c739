"""Benchmarks that compare several ways to compute the same thing in one run."""

SUBCOMMANDS = {
    'acmix': 'hybrid_mm.benchmarks.acmix',
    'backbones': 'hybrid_mm.benchmarks.backbones',
    'compile': 'hybrid_mm.benchmarks.compile',
    'elsa': 'hybrid_mm.benchmarks.elsa',
    'evolving_attention': 'hybrid_mm.benchmarks.evolving_attention',
    'lesa': 'hybrid_mm.benchmarks.lesa',
    'local_attention': 'hybrid_mm.benchmarks.local_attention',
    'neighborhood': 'hybrid_mm.benchmarks.neighborhood',
    'peripheral': 'hybrid_mm.benchmarks.peripheral',
    'qna': 'hybrid_mm.benchmarks.qna',
    'train': 'hybrid_mm.benchmarks.train',
}
"""Modules of the benchmarks by the name that ``tools/benchmark.py`` gives them."""

OPERATORS = [name for name in SUBCOMMANDS if name not in ('backbones', 'compile', 'train')]

TABLES = {
    'floor': 'hybrid_mm.benchmarks.floor',
    'predict': 'hybrid_mm.analysis.prediction_time',
}
"""Modules of benchmarks with a table of their own, ``tables(wanted, rounds, seconds, quick)``."""
