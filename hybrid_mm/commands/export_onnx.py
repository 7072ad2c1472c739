"""What ``tools/export_onnx.py`` does once its arguments are read."""

import argparse
import fnmatch
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from hybrid_mm.checkpoints import load_weights, read_checkpoint
from hybrid_mm.errors import UserError, warn
from hybrid_mm.export import graphs, onnx_files, table, times
from hybrid_mm.export.metadata import metadata, raw_metadata
from hybrid_mm.export.preprocessing import InputType
from hybrid_mm.export.whole import whole_graph
from hybrid_mm.run.checks.channels import LOADER, check_channels, loader_of
from hybrid_mm.run.checks.classes import meta_of_model
from hybrid_mm.run.checks.datasets import readers
from hybrid_mm.run.config import load_config, require, without_init_cfg
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_file, writing
from hybrid_mm.run.pipeline_size import pipeline_size
from hybrid_mm.run.published import checkpoint_of
from hybrid_mm.run.quiet import quietly
from hybrid_mm.zoo.families import families


@quietly
def run(args: argparse.Namespace) -> None:
    """Write the file or files of a model and print their inputs and outputs, or write a table."""
    if args.table or args.times:
        write_table(args)
        return
    config, *checkpoint, out = args.files
    checkpoint = [checkpoint_of(config, name) for name in checkpoint]
    check_output_file(out, 'output', inputs=[config, *checkpoint])
    onnx_files.require_exporter()
    cfg = load_config(config, args.cfg_options)
    require(cfg, 'model', 'test_dataloader.dataset')
    check_channels(cfg, 'test')
    model, meta = build_model(cfg, checkpoint[0] if checkpoint else None)
    size = tuple(args.size) if args.size else size_of_input(cfg, args.fixed)
    size = size if args.fixed else onnx_files.traced_size(size)
    if args.raw or args.backbone_only:
        write_raw(args, cfg, model, meta, size)
        return
    pipeline = next(readers(cfg.test_dataloader.dataset)).get('pipeline')
    own_order = loader_of(pipeline) is not None
    if args.input is None and own_order:
        _say(f'--input float: images of {LOADER} may have more than 8 bits; else --input uint8')
    kind: InputType = args.input or ('float' if own_order else 'uint8')
    graph = whole_graph(model, size, args.batch, kind, args.probabilities, own_order)
    path = Path(out)
    _write(graph, path, args.fixed, metadata(cfg, graph, meta))
    others = () if args.fixed else onnx_files.other_images(graph)
    _report(graph, path, others if args.check else None)


def write_raw(
    args: argparse.Namespace,
    cfg: Config,
    model: nn.Module,
    meta: dict[str, Any],
    size: tuple[int, int],
) -> None:
    """Write the file or files of a model or its backbone whose outputs are not decoded."""
    settings = dict(backbone_only=args.backbone_only, batch=args.batch or 1)
    properties = raw_metadata(cfg, model, meta)
    for graph in graphs.graphs_of(model, size, **settings):
        path = Path(args.files[-1])
        path = path.with_name(f'{path.stem}{graph.part}.onnx')
        _write(graph, path, args.fixed, properties)
        others = () if args.fixed else onnx_files.other_sizes(model, size, graph.part, **settings)
        _report(graph, path, others if args.check else None)


def _write(graph: graphs.Graph, path: Path, fixed: bool, properties: dict[str, str]) -> None:
    """Export a graph; what can only be exported for one size is refused with the way out."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            onnx_files.export(graph, path, not fixed, properties, _say)
        except graphs.ExportError as error:
            if 'laid out for one size' in str(error):
                text = f'{str(error).partition(";")[0]}; --fixed --size HEIGHT WIDTH exports it'
                raise graphs.ExportError(f'{text} for one') from error
            if 'Sizes of tensors must match' in str(error):
                raise graphs.ExportError(
                    f'{error}; if the network takes only sizes that its strides divide, '
                    '--cfg-options model.data_preprocessor.pad_size_divisor=32 pads images within '
                    'the file, and --fixed --size HEIGHT WIDTH exports it for one'
                ) from error
            raise


def _report(graph: graphs.Graph, path: Path, others: Iterable[dict[str, Tensor]] | None) -> None:
    """Say what a file takes and returns; compare it with PyTorch if there are ``others``."""
    details = f'{", ".join(graph.inputs)} -> {", ".join(graph.outputs)}'
    if others is not None:
        worst = onnx_files.check(graph, path, others)
        details += f'; differs from PyTorch by {worst:.1e} at most'
    wrote(path, details)


def size_of_input(cfg: Config, fixed: bool) -> tuple[int, int]:
    """Height and width at which a photo reaches the model in the test of a config.

    It is said if the file is to take no other.
    """
    say = _say if fixed else lambda text: None
    found = pipeline_size(cfg)
    if found is None:
        say('size 512 x 512: the test pipeline names none; --size HEIGHT WIDTH sets another')
        return 512, 512
    settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    tested = settings.get('test_cfg') or {}
    height, width = found.expected(
        settings.get('pad_size_divisor') or tested.get('size_divisor') or 1
    )
    say(f'size {height} x {width} (height x width), from the test pipeline; --size sets another')
    return height, width


def build_model(cfg: Config, checkpoint: str | None) -> tuple[nn.Module, dict[str, Any]]:
    """The model with its weights, and its classes and palette."""
    weights: dict[str, Any] = {} if checkpoint is None else read_checkpoint(checkpoint)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(without_init_cfg(cfg.model))
    if checkpoint is None:
        warn('no checkpoint: the file gets random weights')
    else:
        load_weights(model, weights, checkpoint)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        return model, meta_of_model(cfg, weights, checkpoint or '')


def write_table(args: argparse.Namespace) -> None:
    """Write the rows of the families that match a pattern, and print those that are complete."""
    path, flag, chosen = (
        (args.table, '--table', table.TABLE) if args.table else (args.times, '--times', times.TABLE)
    )
    check_output_file(path, flag, suffixes=['.md'])
    if not fnmatch.filter(families(), args.only):
        raise UserError(f'--only {args.only!r} matches no family')
    steps = times.steps_of(args.fixed, not args.no_compile) if args.times else args.columns
    if unknown := [name for name in steps or () if name not in chosen.steps]:
        raise UserError(f'--columns: {unknown[0]!r} is none of {", ".join(chosen.steps)}')
    for name, cells in chosen.update(path, args.only, _say, steps, args.missing, args.jobs):
        print(name, *cells.values(), sep=' | ', flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
