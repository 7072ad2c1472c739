"""What ``tools/demo.py`` does once its arguments are read."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from hybrid_mm.data import shapes
from hybrid_mm.demo import figures
from hybrid_mm.errors import UserError
from hybrid_mm.run.config_folder import installed_configs
from hybrid_mm.run.outputs import check_output_folder

ROOT = installed_configs().parent
SEGMENTER = ROOT / 'configs/demo/van-lska-mini_semfpn_shapes.py'
DETECTOR = ROOT / 'configs/demo/mask-rcnn_van-lska-mini_fpn_shapes.py'
NAMES = {'mIoU': 'mIoU', 'coco/bbox_mAP': 'box mAP', 'coco/segm_mAP': 'mask mAP'}
ITERATION = re.compile(r'Iter\((train|test)\)\s*\[\s*(\d+)/(\d+)\]')
LOG = 'train.log'  # of a training, in its folder
LOSS = re.compile(r'\bloss: ([\d.]+)')
# seconds per step on two cores, for the progress bar only
SECONDS = dict(data=8, train_segmenter=150, train_detector=240, test_segmenter=15, test_detector=18)
SECONDS['pictures'] = 10


def run(args: argparse.Namespace) -> int:
    """Run all steps; write pictures, curves and ``metrics.json`` to the output folder."""
    out, data = Path(args.out).resolve(), Path(args.data).resolve()
    began = time.monotonic()
    check_output_folder(out, 'out')
    check_output_folder(data, '--data')
    segmenter, detector = models = [
        Model(
            'segmenter',
            SEGMENTER,
            out / 'segmenter',
            tuple(f'{s}_dataloader.dataset.data_root={data}' for s in ('train', 'val', 'test')),
        ),
        Model(
            'detector',
            DETECTOR,
            out / 'detector',
            (
                *(f'{s}_dataloader.dataset.data_root={data}' for s in ('train', 'val', 'test')),
                f'val_evaluator.ann_file={data}/annotations/instances_validation.json',
                f'test_evaluator.ann_file={data}/annotations/instances_validation.json',
            ),
        ),
    ]

    progress = Progress(list(SECONDS))
    try:
        progress.step('data')
        try:
            written = shapes.write_dataset(
                data, progress=lambda n, m: progress.update(n / m, f'drawing picture {n} of {m}')
            )
        except FileExistsError as error:
            raise UserError(f'--data: {error}') from error
        progress.say(f'data set: {"drawn" if written else "found"} in {data}')

        train(progress, segmenter, args.reuse, [])
        start = [
            f'model.{part}.init_cfg.checkpoint={segmenter.checkpoint}'
            for part in ('backbone', 'neck')
        ]
        train(progress, detector, args.reuse, start)
        metrics = {model.name: test(progress, model) for model in models}

        progress.step('pictures')
        pictures = [out / 'detections.png', out / 'segmentations.png', out / 'curves.png']
        figures.draw_detections(data, predictions(detector), pictures[0])
        progress.update(0.3, 'drawing pictures')
        figures.draw_segmentations(data, predictions(segmenter), pictures[1])
        progress.update(0.7, 'drawing pictures')
        figures.draw_curves({model.name: model.folder for model in models}, pictures[2])
        progress.update(1, 'done')
    finally:
        progress.close()

    lines, kept = report(models, metrics)
    (out / 'metrics.json').write_text(json.dumps(metrics, indent=1))
    print('\n' + '\n'.join(lines) + '\n')
    for path in (*pictures, out / 'metrics.json', segmenter.checkpoint, detector.checkpoint):
        print(path)
    print(f'\n{_minutes(time.monotonic() - began)} minutes in all')
    return 0 if kept else 1


@dataclass(frozen=True)
class Model:
    """One of the two trainings.

    Attributes:
        name: 'segmenter' or 'detector'.
        config: Config file.
        folder: Work dir.
        options: ``--cfg-options`` of training and testing.
    """

    name: str
    config: Path
    folder: Path
    options: tuple[str, ...]

    @cached_property
    def settings(self) -> Config:
        """The loaded config."""
        return Config.fromfile(self.config)

    @property
    def checkpoint(self) -> Path | None:
        """The last checkpoint if the training has finished, else None."""
        path = self.folder / f'iter_{self.settings.train_cfg.max_iters}.pth'
        return path if path.is_file() else None

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return (self.folder / 'last_checkpoint').is_file()


class Progress:
    """Progress and time left of the whole demo: a bar in a terminal, plain lines elsewhere."""

    def __init__(self, steps: list[str]) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.total, self.done, self.share = sum(SECONDS[s] for s in steps), 0.0, 0.0
        self.began, self.said = time.monotonic(), -1
        self.bar = None
        if self.console.is_terminal:
            self.bar = Bar(
                TextColumn('{task.percentage:3.0f} %'),
                BarColumn(30),
                TimeElapsedColumn(),
                TextColumn('left'),
                TimeRemainingColumn(),
                TextColumn('{task.description}'),
                console=self.console,
            )
            self.bar.start()
            self.task = self.bar.add_task('', total=self.total)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False)

    def step(self, name: str) -> None:
        """Start the next step."""
        self.done, self.share = self.done + self.share, SECONDS[name]
        self.update(0, '')

    def update(self, fraction: float, text: str) -> None:
        """Show that a fraction of the step is done."""
        at = self.done + fraction * self.share
        if self.bar:
            self.bar.update(self.task, completed=at, description=text)
            return
        twentieth = int(20 * at / self.total)
        if text and twentieth > self.said:
            self.said = twentieth
            spent = time.monotonic() - self.began
            left = spent * (self.total - at) / at if at else self.total
            self.say(f'{100 * at / self.total:3.0f} %  {_minutes(left)} left  {text}')

    def close(self) -> None:
        """Stop the bar."""
        if self.bar:
            self.bar.stop()


def _minutes(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


def _run(progress: Progress, model: Model, command: list, log: Path, verb: str) -> None:
    """Run one of our tools; write its output to a log file and show its iterations in the bar."""
    log.parent.mkdir(parents=True, exist_ok=True)
    last, loss = deque(maxlen=15), ''
    with (
        open(log, 'w') as file,
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            text=True,
            errors='replace',
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            for line in process.stdout:
                file.write(line)
                last.append(line.rstrip())
                if found := ITERATION.search(line):
                    at, total = int(found[2]), int(found[3])
                    if found := LOSS.search(line):
                        loss = f', loss {float(found[1]):.2f}'
                    text = f'{verb} the {model.name}: {at} of {total}{loss}'
                    progress.update(at / total, text)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        progress.close()
        print('\n'.join(last), file=sys.stderr)
        raise UserError(f'{verb} the {model.name} failed (see above); the whole log: {log}')


def _two_processes() -> bool:
    """Whether to train with two processes: on a CPU with more than one core."""
    return not torch.cuda.is_available() and len(os.sched_getaffinity(0)) > 1


def train(progress: Progress, model: Model, reuse: bool, more: list[str]) -> None:
    """Train a model with tools/train.py, or reuse or resume the training of an earlier run."""
    progress.step(f'train_{model.name}')
    if reuse and model.checkpoint:
        progress.say(f'{model.name}: reusing {model.checkpoint}')
        return
    command = ['tools/train.py', model.config, '--work-dir', model.folder]
    options = list(model.options)
    if _two_processes():
        # two processes with half of the batch each (torchrun gives each one thread) are faster on
        # two cores than one process with two threads
        command = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', *command]
        command += ['--launcher', 'pytorch']
        options.append(
            f'train_dataloader.batch_size={model.settings.train_dataloader.batch_size // 2}'
        )
    if reuse and model.started:
        progress.say(f'{model.name}: resuming from the last checkpoint in {model.folder}')
        command.append('--resume')
    else:
        remove(model.folder)
    command += ['--cfg-options', *options, *more]
    began = time.monotonic()
    _run(progress, model, command, model.folder / LOG, 'training')
    progress.say(f'{model.name}: trained in {_minutes(time.monotonic() - began)}')


def remove(folder: Path) -> None:
    """Remove the training of an earlier demo, and nothing else.

    Raises:
        UserError: The folder has something else.
    """
    if folder.exists():
        if any(folder.iterdir()) and not (folder / LOG).is_file():
            raise UserError(f'{folder} is not of an earlier demo; name another output folder')
        shutil.rmtree(folder)


def test(progress: Progress, model: Model) -> dict:
    """Evaluate a model with tools/test.py, which writes its predictions to ``predictions(model)``.

    Returns:
        The metrics by the names in ``expected`` of the config.
    """
    progress.step(f'test_{model.name}')
    folder = model.folder / 'test'
    shutil.rmtree(folder, ignore_errors=True)
    command = ['tools/test.py', model.config, model.checkpoint, '--work-dir', folder]
    command += ['--out', predictions(model), '--cfg-options', *model.options]
    _run(progress, model, command, model.folder / 'test.log', 'testing')
    (metrics,) = folder.glob('*/*.json')  # written by MMEngine's LoggerHook
    return json.loads(metrics.read_text())


def predictions(model: Model) -> Path:
    """Path of the predictions on the validation split: a file, or a folder of label maps."""
    name = 'predictions.pkl' if model.name == 'detector' else 'predictions'
    return model.folder / 'test' / name


def report(models: list[Model], metrics: dict[str, dict]) -> tuple[list[str], bool]:
    """Compare the metrics with the values in the configs.

    Returns:
        Lines of a table, and whether every metric reaches its value.
    """
    lines, kept = [f'{"":10}{"figure":10}{"reached":>9}{"promised":>10}'], True
    for model in models:
        for key, promised in model.settings.expected.items():
            reached = metrics[model.name][key]
            good = reached >= promised
            kept = kept and good
            scale = 1 if key == 'mIoU' else 100  # all in per cent
            lines.append(
                f'{model.name:10}{NAMES[key]:10}{scale * reached:9.1f}{scale * promised:10.1f}'
                f'  {"ok" if good else "MISSED"}'
            )
    return lines, kept
