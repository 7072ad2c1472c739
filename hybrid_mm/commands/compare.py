"""What ``tools/analysis/compare.py`` does once its arguments are read."""

import argparse
import json
import math
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hybrid_mm.analysis import comparison, comparison_report, curves
from hybrid_mm.analysis.comparison import Entry, Settings
from hybrid_mm.analysis.networks import labels_and_files, one_line, stretched
from hybrid_mm.benchmarks.report import environment
from hybrid_mm.errors import UserError, nearest, warn
from hybrid_mm.run.console import progress, wrote
from hybrid_mm.run.devices import torch_device
from hybrid_mm.run.outputs import check_output_folder, replacing
from hybrid_mm.run.quiet import quietly

_PACKAGES = 'mmdet', 'mmseg', 'mmpretrain'
_PAUSE = 2.0  # seconds between two plots


@quietly
def run(args: argparse.Namespace) -> int | None:
    """Measure and test the models; print the table, and write it after every step."""
    check_output_folder(args.out)
    labels, files = labels_and_files(args.models, args.checkpoints, args.labels)
    device = torch_device(args.device)
    amp = _precision(args.amp, device)
    settings = Settings(
        size=(args.shape[0], args.shape[-1]) if args.shape else None,
        own_size=args.own_size,
        batch=args.batch,
        rounds=(30 if device.type == 'cuda' else 7) if args.rounds is None else args.rounds,
        device=device,
        amp=amp,
        training=not args.forward_only,
        image=_image(args.image),
        options=args.cfg_options,
    )
    entries = [Entry(label, model) for label, model in zip(labels, args.models, strict=True)]
    if args.logs:
        _read_logs(entries, args)
    results = _Results(entries, settings, args)
    interrupted = False
    try:
        with progress('comparing', len(entries) + settings.rounds) as advance:
            comparison.compare(entries, files, settings, results.write, advance)
        if args.test:
            _test(entries, files, args, results)
    except KeyboardInterrupt:
        interrupted = True
    return results.show(interrupted)


def _precision(amp: str | None, device: torch.device) -> str | None:
    """Data type of ``--amp`` on a device; None for float32.

    Raises:
        UserError: It cannot be used there.
    """
    if amp is None:
        return None
    if device.type == 'cpu' and torch.cuda.is_available():
        raise UserError(
            '--amp on the CPU of a machine with a GPU: hide that with CUDA_VISIBLE_DEVICES=-1'
        )
    if device.type == 'cpu' and amp == 'float16':
        raise UserError('--amp float16 needs a GPU; on a CPU use --amp bfloat16')
    default = 'float16' if device.type == 'cuda' else 'bfloat16'
    return default if amp == 'auto' else amp


def _image(path: str | None):
    if path is None:
        return None
    stretched(path, 32, 32)  # said now if it cannot be read
    return lambda height, width: stretched(path, height, width)


class _Results:
    """The table, and the files that it is written to."""

    def __init__(self, entries: list[Entry], settings: Settings, args: argparse.Namespace) -> None:
        self.entries, self.args = entries, args
        self.environment = environment(settings.device, _PACKAGES)
        precision = 'float32' if settings.amp is None else f'mixed precision ({settings.amp})'
        self.settings = dict(
            batch=settings.batch,
            rounds=settings.rounds,
            precision=precision,
            device=str(settings.device),
            input='',
        )
        self.drawn = 0.0

    def write(self, final: bool = False) -> None:
        """Write all files; the plot not after every round, as it takes longer."""
        self.settings.update(input=self._input(), rounds=max(e.rounds for e in self.entries))
        out, args = self.args.out, (self.entries, self.settings, self.environment)
        content = comparison_report.as_json(*args)
        with replacing(out / 'comparison.json') as path:
            path.write_text(json.dumps(content, indent=1))
        with replacing(out / 'comparison.csv') as path:
            comparison_report.write_csv(self.entries, path)
        with replacing(out / 'comparison.md') as path:
            path.write_text(
                comparison_report.markdown(*args, self.args.metrics or ()), encoding='utf-8'
            )
        if final or time.monotonic() - self.drawn > _PAUSE:
            self._draw(out / 'comparison.png')
            self.drawn = time.monotonic()

    def _draw(self, file: Path) -> None:
        """Write the plot, or remove that of another comparison if there is nothing to draw."""
        metrics = self.args.metrics or ()
        with TemporaryDirectory() as folder:
            picture = Path(folder) / file.name
            if comparison_report.plot(self.entries, picture, metrics):
                with replacing(file) as path:
                    shutil.copyfile(picture, path)
            else:
                file.unlink(missing_ok=True)

    def _input(self) -> str:
        sizes = list(dict.fromkeys(entry.size for entry in self.entries if entry.size))
        what = f'picture {Path(self.args.image).name}' if self.args.image else 'noise'
        if len(sizes) == 1:
            return f'the same {what} of {sizes[0][0]} x {sizes[0][1]} for all'
        return f'{what} of the size in the table' if sizes else what

    def show(self, interrupted: bool) -> int:
        """Print the table and what is to be said of it; returns the status."""
        self.write(final=True)
        head, rows = comparison_report.table(self.entries, self.args.metrics or ())
        comparison_report.print_comparison(head, rows)
        print(comparison_report.conditions(self.settings))
        for note in comparison_report.notes(self.entries):
            print(note)
        for text in (comparison.busy(self.entries), comparison.mixed_tasks(self.entries)):
            if text:
                warn(text)
        kinds = '.csv, .json and .png'
        if not (self.args.out / 'comparison.png').exists():
            kinds = '.csv and .json'
        wrote(self.args.out, f'comparison.md, {kinds}')
        if interrupted:
            warn('interrupted: these are the figures so far')
            return 130
        return int(any(entry.errors for entry in self.entries))


def _read_logs(entries: list[Entry], args: argparse.Namespace) -> None:
    """Put the metrics of the logs into the entries."""
    if len(args.logs) != len(entries):
        raise UserError(
            f"--logs: {len(entries)} models need as many, got {len(args.logs)} ('-' for none)"
        )
    runs = {log: _read_log(log) for log in args.logs if log != '-'}
    known = list(dict.fromkeys(name for run in runs.values() for name in run.metrics))
    for name in args.metrics or ():
        if name not in known:
            hint = nearest(name, known) or f'; there are {", ".join(known)}'
            raise UserError(f'--metrics: no log has {name!r}{hint}')
    for entry, log in zip(entries, args.logs, strict=True):
        if log == '-':
            continue
        own = [name for name in args.metrics or runs[log].metrics if name in runs[log].metrics]
        if own:
            entry.metrics, place = curves.metrics_of(runs[log], args.pick, own)
            entry.metrics_from = f'{place} in {log}'


def _read_log(log: str) -> curves.Run:
    try:
        run = curves.read_run(log)
    except FileNotFoundError as error:
        raise UserError(f'--logs: {error}') from error
    if not run.metrics:
        there = ', '.join(list(run.curves)[:6])
        raise UserError(
            f'--logs: {log} {f"has no metrics, only {there}" if there else "is empty"}; was it '
            'validated? tools/test.py --out-item metrics --out FILE writes those of a checkpoint, '
            'and --test tests it'
        )
    return run


def _test(entries: list[Entry], files: list[str | None], args, results: _Results) -> None:
    """Test the checkpoints one after the other, and put what is found into the entries."""
    for entry, file in zip(entries, files, strict=True):
        if file is None or 'build' in entry.errors:
            continue
        print(f'testing {entry.label} with {file}')
        try:
            found = comparison.tested(entry.model, file, _run_arguments(entry, args))
        except Exception as error:  # of foreign data sets and metrics
            entry.errors['test'] = one_line(error)
        else:
            entry.metrics = {key: value for key, value in found.items() if math.isfinite(value)}
            entry.metrics_from = f'a test of {file}'
        results.write()


def _run_arguments(entry: Entry, args: argparse.Namespace) -> argparse.Namespace:
    """Flags of tools/test.py."""
    return argparse.Namespace(
        config=entry.model,
        work_dir=str(args.out / 'tests' / entry.label.replace('/', '_')),
        cfg_options=args.cfg_options,
        amp=args.amp,
        no_pin_memory=False,
        no_persistent_workers=False,
        seed=None,
        deterministic=False,
        launcher='none',
        local_rank=0,
    )
