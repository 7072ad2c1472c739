"""What ``tools/study.py`` does once its arguments are read."""

import argparse
from pathlib import Path

import torch
from mmengine.config import Config

from hybrid_mm.analysis.study import queue, records, systems, tables, training
from hybrid_mm.data import shapes
from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run import interrupt, quiet
from hybrid_mm.run.config_folder import installed_configs
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_file, check_output_folder

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools/study.py'


@quiet.quietly
def run(args: argparse.Namespace) -> int:
    """Run what is missing, write the tables, or train one system."""
    args.study = Path(args.study or installed_configs() / 'study')
    if not (args.study / 'members').is_dir():
        raise UserError(f'--study {args.study}: a folder with members/ and recipes/ expected')
    args.results = Path(args.results or args.study / 'results.json')
    found = systems.find(args.study)
    if args.what == 'table':
        return write_tables(args, found)
    if args.what == 'train':
        return train_one(args, found)
    return run_missing(args, found)


def run_missing(args: argparse.Namespace, found: dict[str, systems.System]) -> int:
    """Run the trainings without a result."""
    check_output_file(args.results, '--results')
    root = check_output_folder(args.work_dir, '--work-dir')
    chosen = systems.choose(found, args.only)
    absent = [system for system in chosen if system.absent]
    for system in absent:
        print(f'left out: {system.name}, which needs {system.package} (pip install it)')
    chosen = [system for system in chosen if not system.absent]
    known = records.read(args.results)
    trainings = []
    for task in args.task:
        prepare_data(task, args, found)
        names = {system.name for system in chosen}
        if args.extremes:
            own = [system.name for system in chosen if not (system.peer_of or system.only_pair)]
            names = queue.extremes(known, task, own, args.extremes)
        for seed in range(args.seeds):
            for system in chosen:
                if system.name not in names:
                    continue
                cfg = config_of(system, task, seed, args)
                identity = systems.digest(cfg)
                iterations = cfg.train_cfg.max_iters
                trainings.append(queue.Training(system, task, seed, identity, iterations))
    todo = queue.missing(trainings, known)
    print(f'{len(trainings) - len(todo)} of {len(trainings)} trainings have results')

    def finished(record: records.Record) -> None:
        now = records.read(args.results)  # another process may have added some
        now[record.key] = record
        records.write(args.results, now)

    def command(one: queue.Training) -> list[str]:
        return [
            *(str(TOOL), 'train', one.system.name, '--task', one.task, '--seed', str(one.seed)),
            *('--study', str(args.study), '--work-dir', str(args.work_dir)),
        ]

    failures = queue.run_all(todo, Path(root), args.jobs, command, finished)
    if failures:
        print('\nfailed:', *failures, sep='\n  ')
    return int(bool(failures))


def config_of(system: systems.System, task: str, seed: int, args: argparse.Namespace) -> Config:
    """Config of a training with these arguments."""
    data = Path(args.work_dir, 'shapes') if task == 'detection' else None
    return systems.compose(system, task, seed, args.study, data)


def prepare_data(task: str, args: argparse.Namespace, found: dict[str, systems.System]) -> None:
    """Draw the shapes, or make sure that CamVid is there."""
    if task == 'detection':
        try:
            shapes.write_dataset(Path(args.work_dir, 'shapes'))
        except FileExistsError as error:
            raise UserError(f'--work-dir: {error}') from error
        return
    system = next(iter(found.values()))  # the data are the same for all
    root = Path(config_of(system, task, 0, args).train_dataloader.dataset.data_root)
    for folder in ('images/train', 'images/val', 'annotations/train', 'annotations/val'):
        if not (root / folder).is_dir():
            raise UserError(
                f'no CamVid: {root / folder} is no folder; set CAMVID_ROOT to the folder with '
                'images/{train,val}/*.jpg and annotations/{train,val}/*.png'
            )


def train_one(args: argparse.Namespace, found: dict[str, systems.System]) -> int:
    """Train one system in this process, as ``run`` does; the result stays in its folder."""
    if args.system not in found:
        hint = nearest(args.system, found) or f'; there are {", ".join(found)}'
        raise UserError(f'no system {args.system!r}{hint}')
    system = found[args.system]
    if system.absent:
        raise UserError(f'{system.name} needs {system.package}: pip install {system.package}')
    torch.set_num_threads(1)
    with interrupt.interruptible(interrupt.training, args.argv):
        for task in args.task:
            prepare_data(task, args, found)
            cfg = config_of(system, task, args.seed, args)
            iterations = cfg.train_cfg.max_iters
            one = queue.Training(system, task, args.seed, systems.digest(cfg), iterations)
            training.train(system, task, cfg, one.folder(Path(args.work_dir)))
    return 0


def write_tables(args: argparse.Namespace, found: dict[str, systems.System]) -> int:
    """Write the tables and plots of the results into the page."""
    known = records.read(args.results)
    page = Path(args.page)
    for task in args.task:
        digests = {
            system.name: systems.digest(config_of(system, task, 0, args))
            for system in found.values()
        }
        for path in tables.write(page, task, found, known, digests):
            wrote(path)
    return 0
