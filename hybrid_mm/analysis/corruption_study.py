"""Evaluation of a model under corruption: resumable runs, their summary and figures.

Source: "Benchmarking Robustness in Object Detection" (arXiv 1907.07484); the protocol is that of
MMDetection's ``test_robustness.py``.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from hybrid_mm.data.corruptions import BENCHMARK, CORRUPTIONS, GROUPS, SEVERITIES, Corrupt
from hybrid_mm.engine.atomic_files import write_atomically
from hybrid_mm.errors import UserError
from hybrid_mm.evaluation.robustness import mce, performance_under_corruption
from hybrid_mm.run.config import inner_dataset, task_of
from hybrid_mm.run.outputs import plain_label

FILE = 'robustness.json'
CLEAN = 'clean'
SHIFTED = {
    'imagenet-a': 'ImageNetA',
    'imagenet-r': 'ImageNetR',
    'imagenet-sketch': 'ImageNetSketch',
}
_MAIN_METRICS = ('bbox_mAP', 'segm_mAP', 'mIoU', 'top1', 'mAP')


def insert_transform(cfg: Config, to_rgb: bool, seed: int) -> None:
    """Insert :class:`~hybrid_mm.data.Corrupt` with severity 0 into the test pipeline of a config.

    Its place is after the loading of the image; for classification it is before the packing, as
    ImageNet-C was made from cropped images.

    Raises:
        UserError: The data set has no pipeline, or one that does not start with loading an image.
    """
    dataset = inner_dataset(cfg.test_dataloader.dataset)
    steps = dataset.get('pipeline') or []
    types = [str(step['type']) for step in steps]
    if not types or 'LoadImage' not in types[0]:
        raise UserError(
            f'test_dataloader.dataset.pipeline begins with {types[0] if types else "nothing"}; '
            'expected a step that loads an image (LoadImageFromFile), after which images are '
            'corrupted'
        )
    step = dict(type='hybrid_mm.Corrupt', corruption=CORRUPTIONS[0], severity=0)
    at = len(steps) - 1 if task_of(cfg) == 'classification' else 1
    dataset.pipeline = [*steps[:at], dict(step, to_rgb=to_rgb, seed=seed), *steps[at:]]


def _corrupting(dataset) -> Corrupt:
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return next(t for t in dataset.pipeline.transforms if isinstance(t, Corrupt))


class _Ticks(Hook):
    """Call a function after every batch."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.tick = tick

    def after_test_iter(self, runner: Runner, *args, **kwargs) -> None:
        self.tick()


class Evaluation:
    """Evaluates one model on several data sets, one after the other.

    Args:
        runner: Runner of a config that :func:`insert_transform` changed; its weights are loaded.
        cfg: The config.
        tick: Called after every batch.
    """

    def __init__(self, runner: Runner, cfg: Config, tick: Callable[[], None]) -> None:
        self.runner, self.cfg = runner, cfg
        runner.register_hook(_Ticks(tick))
        self.loop = runner.build_test_loop(cfg.test_cfg)
        runner._test_loop = self.loop
        runner.call_hook('before_run')
        runner.load_or_resume()

    @property
    def batches(self) -> int:
        """Number of batches of the clean data set."""
        return len(self.loop.dataloader)

    def corrupted(self, corruption: str, severity: int) -> dict[str, float | None]:
        """Metrics on images that are corrupted while loading; severity 0 is clean."""
        transform = _corrupting(self.loop.dataloader.dataset)
        # workers start with every evaluation, so they see the change
        transform.corruption, transform.severity = corruption, severity
        return numbers(self.loop.run())

    def other(self, dataset: dict, evaluator: dict | None = None) -> dict[str, float | None]:
        """Metrics on another data set, by default with the evaluator of the config."""
        cfg = Config(self.cfg._cfg_dict.to_dict())
        loader = dict(cfg.test_dataloader, dataset=dataset)
        self.runner._test_dataloader = loader
        self.runner._test_evaluator = evaluator or cfg.test_evaluator
        try:
            return numbers(self.runner.build_test_loop(dict(type='TestLoop')).run())
        finally:
            self.runner._test_loop = self.loop


def plain_pipeline(cfg: Config, resize: bool) -> list[dict]:
    """Test pipeline for images that are corrupted already; ``resize`` keeps resizing and crops."""
    steps = inner_dataset(cfg.test_dataloader.dataset).pipeline
    dropped = ('hybrid_mm.Corrupt', *(() if resize else ('Resize', 'ResizeEdge', 'CenterCrop')))
    return [step for step in steps if step['type'] not in dropped]


def numbers(metrics: dict) -> dict[str, float | None]:
    """Metrics that are numbers; None where COCO gives -1 or NaN because there are no objects."""
    found = {}
    for name, value in metrics.items():
        if name.rpartition('/')[2] in ('time', 'data_time') or isinstance(value, (str, bool)):
            continue
        try:
            value = float(value)
        except (TypeError, ValueError):
            continue
        found[name] = value if math.isfinite(value) and value >= 0 else None
    return found


def fill_missing(metrics: dict, clean: dict) -> dict:
    """Metrics, or all 0 if MMDetection gave none because nothing was detected."""
    zeros = {name: None if value is None else 0.0 for name, value in clean.items()}
    return {**zeros, **metrics}


class Record:
    """Results of a study in a folder, written after every evaluation.

    Args:
        folder: Folder of ``robustness.json``.
        settings: All that the results depend on; they must be those of the results in the folder.
        restart: Discard the results in the folder.

    Raises:
        UserError: The folder has results with other settings, or a broken file.
    """

    def __init__(self, folder: str | Path, settings: dict, restart: bool = False) -> None:
        self.path = Path(folder) / FILE
        self.content = dict(kind='robustness', settings=settings, results={})
        settings = json.loads(json.dumps(settings))
        if self.path.exists() and not restart:
            found = read(self.path)
            different = sorted(
                key
                for key in {*settings, *found['settings']}
                if settings.get(key) != found['settings'].get(key)
            )
            if different:
                raise UserError(
                    f'{self.path} holds results of another run ({", ".join(different)} differ); '
                    'name another --out, or start again with --restart'
                )
            self.content['results'] = found['results']
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @property
    def results(self) -> dict[str, dict]:
        """Metrics by name of the corruption (or data set) and severity; ``clean`` has only 0."""
        return self.content['results']

    def has(self, name: str, severity: int) -> bool:
        """Whether the results of an evaluation are recorded."""
        return str(severity) in self.results.get(name, {})

    def add(self, name: str, severity: int, metrics: dict, write: bool) -> None:
        """Record the metrics of an evaluation; ``write`` the file in one process only."""
        self.results.setdefault(name, {})[str(severity)] = metrics
        self.content['summary'] = summarise(self.results)
        if write:
            write_atomically(self.path, json.dumps(self.content, indent=1).encode())


def read(path: str | Path) -> dict:
    """Read the results of a study.

    Raises:
        UserError: The file was not written by ``tools/analysis/robustness.py``.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text())
        if content['kind'] != 'robustness' or not isinstance(content['settings'], dict):
            raise KeyError('kind')
        for name, levels in content['results'].items():
            if not all(isinstance(metrics, dict) for metrics in levels.values()):
                raise KeyError(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path} is not a result of tools/analysis/robustness.py ({error})'
        ) from error
    return content


def main_metric(results: dict) -> str:
    """Name of the metric that figures show: box mAP, mIoU or top-1 accuracy."""
    names = list(results[CLEAN]['0'])
    found = (n for end in _MAIN_METRICS for n in names if n.rpartition('/')[2] == end)
    return next(found, names[0])


def severities(results: dict, name: str, metric: str) -> list[float | None]:
    """A metric at each severity of a corruption, None where it was not evaluated."""
    done = results.get(name, {})
    return [done.get(str(s), {}).get(metric) for s in SEVERITIES]


def mean_over_severities(results: dict, name: str, metric: str) -> float | None:
    """Mean of a metric over the severities of a corruption that were evaluated."""
    known = [value for value in severities(results, name, metric) if value is not None]
    return sum(known) / len(known) if known else None


def summarise(results: dict) -> dict[str, dict]:
    """Clean, mean and relative performance of every metric, and mCE of classifiers.

    Means are over the 15 corruptions of the benchmark and over all 19, if those are complete; else
    over the evaluated ones, under a name that says so.
    """
    if CLEAN not in results:
        return {}
    clean = results[CLEAN]['0']
    summary: dict[str, dict] = {}
    done = {n: sorted(results[n], key=int) for n in CORRUPTIONS if n in results}
    complete = [n for n, found in done.items() if len(found) == len(SEVERITIES)]
    sets = [(f'{len(s)}', s) for s in (BENCHMARK, CORRUPTIONS) if set(s) <= set(complete)]
    if not sets and done:
        runs = sum(map(len, done.values()))
        sets = [(f'{runs} of 75, not comparable', tuple(done))]
    for metric, value in clean.items():
        summary[metric] = dict(clean=value)
        for label, names in sets:
            values = {n: [results[n][s].get(metric) for s in done[n]] for n in names}
            found = performance_under_corruption(value, values)
            summary[metric][f'mPC({label})'] = found['mPC']
            summary[metric][f'rPC({label})'] = found['rPC']
        if metric.rpartition('/')[2] == 'top1':
            tables = {n: severities(results, n, metric) for n in complete}
            errors = {n: [100 - v for v in t] for n, t in tables.items() if None not in t}
            summary[metric].update(mce(errors))
    return summary


def _axes(columns: int, rows: int = 1, width: float = 3.4, height: float = 2.8):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout='constrained')
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure, path: str | Path) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def present(results: dict) -> list[str]:
    """Names of the evaluated corruptions, in the order of the benchmark."""
    return [name for name in CORRUPTIONS if name in results]


def draw_heat_map(results: dict, path: str | Path, title: str) -> bool:
    """Draw the main metric over corruptions and severities, as a percentage of the clean one.

    Returns:
        Whether a figure was drawn: there are results, and the clean performance is above 0.
    """
    import numpy as np

    metric, names = main_metric(results), present(results)
    clean = results[CLEAN]['0'][metric]
    if not names or not clean:
        return False
    table = np.array([severities(results, n, metric) for n in names], float) / clean * 100
    figure, ((ax,),) = _axes(1, width=5.2, height=1.2 + 0.3 * len(names))
    image = ax.imshow(table, cmap='viridis', vmin=0, vmax=100, aspect='auto')
    for (i, j), value in np.ndenumerate(table):
        text = '' if np.isnan(value) else f'{value:.0f}'
        ax.text(
            j,
            i,
            text,
            ha='center',
            va='center',
            fontsize=8,
            color='black' if value > 60 else 'white',
        )
    ax.set_xticks(range(len(SEVERITIES)), SEVERITIES)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel('severity')
    title = plain_label(title)
    ax.set_title(f'{title}\n{metric} in per cent of the clean one, {clean:.4g}', fontsize=10)
    figure.colorbar(image, ax=ax)
    _save(figure, path)
    return True


def draw_curves(studies: dict[str, dict], path: str | Path) -> None:
    """Draw the main metric over the severities.

    There is a panel per corruption; for a single model, a panel per group of corruptions.

    Args:
        studies: Results by the name of the model.
        path: Picture to write.
    """
    first = next(iter(studies.values()))
    metric = main_metric(first)
    names = [n for n in CORRUPTIONS if any(n in results for results in studies.values())]
    if not names:
        return
    single = len(studies) == 1
    panels = (
        {g: [n for n in m if n in names] for g, m in GROUPS.items()}
        if single
        else {n: [n] for n in names}
    )
    panels = {title: shown for title, shown in panels.items() if shown}
    columns = min(5, len(panels))
    figure, axes = _axes(columns, -(-len(panels) // columns))
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax, (title, shown) in zip(axes.flat, panels.items(), strict=False):
        for model, results in studies.items():
            for name in shown:
                values = [results[CLEAN]['0'].get(metric), *severities(results, name, metric)]
                points = [(s, v) for s, v in enumerate(values) if v is not None]
                ax.plot(
                    *zip(*points, strict=True),
                    marker='o',
                    markersize=3,
                    label=name if single else plain_label(model),
                )
        ax.set(title=title, xlabel='severity (0 clean)', xticks=range(6), ylim=(0, None))
        ax.grid(alpha=0.3)
        if single or ax is axes.flat[0]:
            ax.legend(fontsize=7)
    figure.suptitle(metric)
    _save(figure, path)


def conditions(names: Sequence[str], levels: Iterable[int]) -> list[tuple[str, int]]:
    """(name, severity) of the evaluations of a study in order, the clean one first."""
    levels = sorted(set(levels) - {0})
    return [(CLEAN, 0), *((name, level) for name in names for level in levels)]
