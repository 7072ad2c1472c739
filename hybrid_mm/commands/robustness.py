"""What ``tools/analysis/robustness.py`` does once its arguments are read."""

import argparse
import contextlib
import hashlib
import io
import os
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hybrid_mm import checkpoints
from hybrid_mm.analysis import corruption_study
from hybrid_mm.data.corruptions import CORRUPTIONS, names_of
from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run import launch
from hybrid_mm.run.checks import data
from hybrid_mm.run.config import task_of
from hybrid_mm.run.console import print_table, wrote
from hybrid_mm.run.outputs import check_output_folder
from hybrid_mm.run.published import checkpoint_of
from hybrid_mm.run.quiet import quietly


@quietly
def run(args: argparse.Namespace) -> None:
    """Run the evaluations; print tables and write results and figures to the output folder."""
    args.checkpoint = checkpoint_of(args.config, args.checkpoint)
    check_output_folder(args.out)
    names = _names(args.corruptions)
    checkpoints.read_checkpoint(args.checkpoint)  # before anything slow
    args.work_dir = args.work_dir or str(Path(args.out) / 'runs')
    cfg = launch.config_of_run(args)
    shifted = _shifted(args, cfg)
    data.check_testing(cfg)
    label = args.label or Path(args.config).stem
    record = corruption_study.Record(args.out, _settings(args, cfg), args.restart)
    corruption_study.insert_transform(cfg, args.to_rgb, args.draw_seed)
    todo = [
        *corruption_study.conditions(names, args.severities),
        *((name, 0) for name in shifted),
    ]
    open_ones = [item for item in todo if not record.has(*item)]
    record.content['label'] = label
    first = True
    if open_ones:
        cfg.log_level = 'WARNING'
        cfg.test_dataloader.persistent_workers = False
        runner = launch.testing_runner(cfg, args.checkpoint)
        first = runner.rank == 0
        with launch.testing_amp(runner, args.amp), _Progress(len(todo), first) as progress:
            evaluation = corruption_study.Evaluation(runner, cfg, progress.tick)
            progress.skip(len(todo) - len(open_ones))
            for name, severity in open_ones:
                progress.begin(f'{name} {severity or ""}', evaluation.batches)
                with contextlib.redirect_stdout(io.StringIO()):  # COCO prints its tables
                    metrics = _evaluate(evaluation, cfg, args, shifted, name, severity)
                clean = record.results.get('clean', {}).get('0', {})
                if name == 'clean' and not metrics:
                    raise UserError(
                        'the clean images gave no metric (has the model found nothing at all?); '
                        'nothing can be compared with that'
                    )
                if name not in shifted and clean and not set(clean) <= set(metrics):
                    metrics = corruption_study.fill_missing(metrics, clean)
                    progress.note(f'{name} {severity}: nothing found, counted as 0')
                record.add(name, severity, metrics, write=first)
                progress.end()
    else:
        record.add('clean', 0, record.results['clean']['0'], write=True)  # with the label
    if first:
        folder, results = Path(args.out), record.results
        if not corruption_study.draw_heat_map(results, folder / 'heat_map.png', label):
            print('no heat map: nothing corrupted was evaluated, or the clean performance is 0')
        corruption_study.draw_curves({label: results}, folder / 'curves.png')
        _print(results, record.content['summary'], shifted)
        wrote(folder)


def _names(selections: list[str]) -> list[str]:

    found = set()
    for selection in selections:
        if selection == 'none':
            continue
        try:
            found.update(names_of(selection))
        except ValueError as error:
            hint = nearest(selection, CORRUPTIONS)
            raise UserError(f'--corruptions: {error}{hint}') from error
    return [name for name in CORRUPTIONS if name in found]


def _shifted(args, cfg) -> dict[str, dict]:
    """Configs of the shifted ImageNets that were asked for, by name."""
    values = {name: getattr(args, name.replace('-', '_')) for name in corruption_study.SHIFTED}
    asked = [
        name for name, value in dict(values, **{'imagenet-c': args.imagenet_c}).items() if value
    ]
    if asked and task_of(cfg) != 'classification':
        raise UserError(f'--{asked[0]} needs a classifier, got a config of {task_of(cfg)}')
    return {
        name: dict(type=f'hybrid_mm.{corruption_study.SHIFTED[name]}', data_root=value)
        for name, value in values.items()
        if value
    }


def _settings(args, cfg) -> dict:
    """Settings that the results depend on, compared on resuming."""
    text = cfg.pretty_text.replace(str(cfg.work_dir), '')
    return dict(
        config=os.path.basename(args.config),
        config_hash=hashlib.sha256(text.encode()).hexdigest()[:16],
        checkpoint=os.path.basename(args.checkpoint),
        checkpoint_bytes=os.path.getsize(args.checkpoint) if os.path.exists(args.checkpoint) else 0,
        to_rgb=args.to_rgb,
        draw_seed=args.draw_seed,
        imagenet_c=bool(args.imagenet_c),
        resize=args.resize,
        amp=args.amp,
    )


def _evaluate(evaluation, cfg, args, shifted, name: str, severity: int) -> dict:

    try:
        if name in shifted:
            dataset = dict(
                shifted[name], pipeline=corruption_study.plain_pipeline(cfg, resize=True)
            )
            return evaluation.other(dataset, dict(type='hybrid_mm.SubsetAccuracy'))
        if args.imagenet_c and severity:
            dataset = dict(
                type='hybrid_mm.ImageNetC',
                data_root=args.imagenet_c,
                corruption=name,
                severity=severity,
                pipeline=corruption_study.plain_pipeline(cfg, args.resize),
            )
            return evaluation.other(dataset)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from error
    return evaluation.corrupted(name if severity else 'gaussian_noise', severity)


class _Progress:
    """Bar over evaluations and batches with the remaining time, in the first process only."""

    def __init__(self, evaluations: int, shown: bool) -> None:

        self.bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self.all = self.bar.add_task('evaluations', total=evaluations)
        self.one = self.bar.add_task('', total=1)

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def skip(self, count: int) -> None:
        if count:
            self.note(f'{count} evaluations were done before')
        self.bar.advance(self.all, count)

    def begin(self, name: str, batches: int) -> None:
        self.bar.reset(self.one, total=batches, description=name)

    def tick(self) -> None:
        self.bar.advance(self.one)

    def note(self, text: str) -> None:
        self.bar.console.print(text)

    def end(self) -> None:
        self.bar.advance(self.all)


def _print(results: dict, summary: dict, shifted: dict) -> None:

    metric, rows = corruption_study.main_metric(results), []
    for name in corruption_study.present(results):
        values = corruption_study.severities(results, name, metric)
        mean = corruption_study.mean_over_severities(results, name, metric)
        rows.append([name, *map(_text, values), _text(mean)])
    if rows:
        head = ['corruption', *map(str, corruption_study.SEVERITIES), 'mean']
        print_table(f'{metric} by severity', head, rows)
    keys = list(dict.fromkeys(key for row in summary.values() for key in row))
    rows = [[name, *(_text(row.get(key)) for key in keys)] for name, row in summary.items()]
    print_table('', ['metric', *keys], rows)
    for name in shifted:
        found = ', '.join(f'{k} {_text(v)}' for k, v in results[name]['0'].items())
        print(f'{name}: {found}')


def _text(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'
