"""What ``tools/quantize_onnx.py`` does once its arguments are read."""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_mm.apis import Predictor
from hybrid_mm.apis.sources import count_sources, list_files
from hybrid_mm.benchmarks.core import in_turn
from hybrid_mm.export.quantise import Feed, quantise
from hybrid_mm.run.console import progress, wrote
from hybrid_mm.run.outputs import check_output_file, replacing
from hybrid_mm.run.quiet import quietly

COMPARED = 16  # images at most, for the comparison with the file in float
ROUNDS, SECONDS = 9, 10.0  # of the comparison of times


class Recorder:
    """A session that keeps what it is given, and its results.

    Args:
        session: Session of onnxruntime.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self.feeds: list[Feed] = []
        self.results: list[Feed] = []

    def run(self, names: list[str], feed: Feed) -> list[np.ndarray]:
        """Run the session."""
        found = self.session.run(names, feed)
        self.feeds.append(feed)
        self.results.append(dict(zip(names, found, strict=True)))
        return found


@quietly
def run(args: argparse.Namespace) -> None:
    """Write the quantised file; print its size, time and agreement with the file in float."""
    check_output_file(args.output, 'output', suffixes=['.onnx'], inputs=[args.model])
    predictor = Predictor(args.model, device='cpu')
    files = list_files(args.images, None)
    chosen = spread(files, args.number + COMPARED)
    recorder = predictor.model.session = Recorder(predictor.model.session)
    with progress('images', count_sources(chosen)) as advance:
        for _ in predictor.stream(chosen):
            advance()
    feeds, results = recorder.feeds, recorder.results
    # every second one until there are enough to compare, so that both are of all of the folder
    compared = list(range(len(feeds)))[1::2][:COMPARED] if len(feeds) > 1 else [0]
    measured = [f for i, f in enumerate(feeds) if i not in compared] or feeds
    with replacing(args.output) as path:
        layers, all_layers = quantise(
            Path(args.model), Path(path), None if args.dynamic else measured, args.reduce_range
        )
        other = Predictor(str(path), device='cpu').model.session
        names = list(results[0])
        found = [dict(zip(names, other.run(names, feeds[i]), strict=True)) for i in compared]
        text = agreement(predictor.task, [results[i] for i in compared], found)
        before, after = times(recorder.session, other, feeds[compared[0]])
        sizes = [Path(p).stat().st_size / 2**20 for p in (args.model, path)]
    wrote(
        args.output,
        f'{layers} of {all_layers} layers in 8 bits; {sizes[1]:.1f} MiB instead of {sizes[0]:.1f}; '
        f'{after:.0f} ms instead of {before:.0f} for an image; on {len(compared)} images {text}',
    )


def spread(files: list, number: int) -> list:
    """At most so many items, evenly from all of a list."""
    if len(files) <= number:
        return files
    return [files[round(i * (len(files) - 1) / (number - 1))] for i in range(number)]


def times(first: Any, second: Any, feed: Feed) -> tuple[float, float]:
    """Milliseconds of two sessions, which take turns."""
    sessions = dict(first=first, second=second)

    def seconds(mode: str, name: str) -> float:
        start = time.perf_counter()
        sessions[name].run(None, feed)
        return time.perf_counter() - start

    end = time.perf_counter() + SECONDS
    samples: dict[tuple[str, str], list[float]] = {}
    for samples in in_turn(seconds, [''], list(sessions), ROUNDS):
        if samples and time.perf_counter() > end:
            break
    first_ms, second_ms = (statistics.median(samples['', name]) * 1e3 for name in sessions)
    return first_ms, second_ms


def agreement(task: str, expected: list[Feed], found: list[Feed]) -> str:
    """How much the results of the quantised file agree with those of the file in float."""
    pairs = list(zip(expected, found, strict=True))
    if task == 'segmentation':
        same = np.concatenate([(a['label_map'] == b['label_map']).ravel() for a, b in pairs])
        return f'{100 * same.mean():.1f} % of the pixels keep their class'
    if task == 'classification':
        same = np.concatenate([a['scores'].argmax(1) == b['scores'].argmax(1) for a, b in pairs])
        return f'{100 * same.mean():.1f} % keep their class'
    rows = [
        refound({k: v[i] for k, v in a.items()}, {k: v[i] for k, v in b.items()})
        for a, b in pairs
        for i in range(len(a['boxes']))
    ]
    there = np.concatenate(rows)
    if not len(there):
        return 'no objects with a score of 0.3 to compare'
    return (
        f'{100 * there.mean():.1f} % of {len(there)} objects (score of at least 0.3) are found '
        'again (same class, IoU of at least 0.5, score of at least 0.2)'
    )


def refound(expected: Feed, found: Feed, score: float = 0.3, lower: float = 0.2) -> np.ndarray:
    """Which objects of an image are found again.

    Args:
        expected: Boxes (K, 4), scores and labels (K).
        found: The same of the other file.
        score: Least score of an object.
        lower: Least score of its counterpart.
    """
    wanted, others = expected['scores'] >= score, found['scores'] >= lower
    a, b = expected['boxes'][wanted][:, None], found['boxes'][others][None]
    inside = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = inside.clip(0).prod(-1)
    area = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    overlap = common / (area[0] + area[1] - common).clip(1e-9)
    same = expected['labels'][wanted][:, None] == found['labels'][others][None]
    return ((overlap >= 0.5) & same).any(1)
