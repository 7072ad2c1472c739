"""What ``tools/test.py`` does once its arguments are read."""

import argparse
from pathlib import Path

import mmengine
from mmengine.config import Config
from mmengine.evaluator import DumpResults
from mmengine.registry import MODELS
from mmengine.runner import Runner

from hybrid_mm.checkpoints import read_checkpoint
from hybrid_mm.errors import UserError, warn
from hybrid_mm.run import interrupt, launch, onnx_file, predictions, published, quiet, tta
from hybrid_mm.run.checks import data
from hybrid_mm.run.config import task_of
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_file, check_output_folder, replacing


def run(args: argparse.Namespace) -> None:
    """Print the metrics of a checkpoint; write predictions and drawings as the flags demand."""
    with quiet.terminal(args), interrupt.interruptible(interrupt.testing, args.argv):
        test(args)


def test(args: argparse.Namespace) -> None:
    """Test with the flags of the command line."""
    # the weights first, before anything that takes time
    model = None
    if onnx_file.is_onnx(args.checkpoint):
        thresholds, _ = onnx_file.split_options(args.checkpoint, args.cfg_options)
        model = MODELS.build(onnx_file.model_of_file(args.checkpoint, thresholds=thresholds))
    else:
        args.checkpoint = published.checkpoint_of(args.config, args.checkpoint)
        read_checkpoint(args.checkpoint)
    check_outputs(args)
    cfg = launch.config_of_run(args)
    if model is not None:
        onnx_file.set_onnx_model(cfg, model)

    launch.set_tracking(cfg, args.tensorboard, args.wandb)
    if args.show or args.show_dir:
        launch.set_visualization(cfg, args.show, args.show_dir, args.wait_time, args.interval)
    if args.tta:
        tta.set_test_time_augmentation(cfg)
    keeps_predictions = args.out and args.out_item != 'metrics'
    dump = set_output(cfg, args.out) if keeps_predictions else None
    data.check_testing(cfg)

    runner = launch.testing_runner(cfg, None if model is not None else args.checkpoint)
    if args.show_dir or (keeps_predictions and dump is None):
        check_file_names(runner, must=dump is None and keeps_predictions)
    if dump is not None:
        runner.test_evaluator.metrics.append(dump)
    with launch.testing_amp(runner, args.amp):
        metrics = runner.test()
    if runner.rank != 0:
        return
    if args.out_item == 'metrics':
        with replacing(args.out) as path:
            mmengine.dump(metrics, path)
    if args.out:
        wrote(args.out)
    if args.show_dir:
        wrote(*pictures(runner, args.show_dir))


def pictures(runner: Runner, show_dir: str) -> tuple[str, str]:
    """Folder of the pictures, which each package puts somewhere else, and their number."""
    places = {
        'detection': Path(runner.work_dir, runner.timestamp, show_dir),
        'segmentation': Path(show_dir, 'vis_data', 'vis_image'),
    }
    place = places.get(task_of(runner.cfg), Path(show_dir))
    number = sum(path.suffix in ('.png', '.jpg') for path in place.glob('*'))
    return str(place), f'{number} pictures' if number != 1 else '1 picture'


def check_outputs(args: argparse.Namespace) -> None:
    """Check that results can be written, and are no files that are read.

    Raises:
        UserError: They cannot be, or are.
    """
    inputs = [args.config, args.checkpoint]
    if args.out_item == 'metrics':
        suffixes = ('.json', '.yml', '.yaml', *predictions.SUFFIXES)
        check_output_file(args.out, '--out', suffixes, inputs)
    if args.show_dir:
        check_output_folder(args.show_dir, '--show-dir')


def check_file_names(runner: Runner, must: bool) -> None:
    """Check that images of several folders do not have one name, under which results are kept.

    Raises:
        UserError: Two do, and results must not be lost.
    """
    dataset = runner.test_dataloader.dataset
    known: dict[str, str] = {}
    for index in range(len(dataset) if hasattr(dataset, 'get_data_info') else 0):
        path = str(dataset.get_data_info(index).get('img_path'))
        name = Path(path).stem
        if name in known and known[name] != path:
            text = f'the results of {known[name]} and {path} have the same name, {name}'
            if must:
                raise UserError(f'--out: {text}; test them one folder at a time')
            warn(f'{text}; only one is kept')
            return
        known[name] = path


def set_output(cfg: Config, path: str) -> DumpResults | None:
    """Keep the predictions: label maps by the evaluator of a segmenter, else by a further metric.

    Raises:
        UserError: The file of the predictions of a detector or classifier is not a pickle; it
            cannot be written.
    """
    task = task_of(cfg)
    if task == 'segmentation':
        check_output_folder(path)
        cfg.test_evaluator.update(output_dir=path, keep_results=True)
        return None
    if not path.endswith(predictions.SUFFIXES):
        raise UserError(f'--out of predictions must end with .pkl or .pickle, got {path}')
    check_output_file(path)
    if task == 'detection':
        from mmdet.evaluation import DumpDetResults  # takes seconds, and only a detector needs it

        return DumpDetResults(out_file_path=path)
    return DumpResults(out_file_path=path)
