"""What ``tools/export_onnx.py`` does once its arguments are read."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from hybrid_mm.checkpoints import load_weights, read_checkpoint
from hybrid_mm.errors import UserError, warn
from hybrid_mm.export import graphs, onnx_files, table
from hybrid_mm.run.checks.classes import meta_of_model
from hybrid_mm.run.config import load_config, require, without_init_cfg
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_file, writing
from hybrid_mm.run.pipeline_size import pipeline_size
from hybrid_mm.run.published import checkpoint_of
from hybrid_mm.run.quiet import quietly


@quietly
def run(args: argparse.Namespace) -> None:
    """Write the file or files of a model and print their inputs and outputs, or write the table."""
    if args.table:
        write_table(args.table, args.only)
        return
    config, *checkpoint, out = args.files
    checkpoint = [checkpoint_of(config, name) for name in checkpoint]
    check_output_file(out, 'output', inputs=[config, *checkpoint])
    cfg = load_config(config, args.cfg_options)
    require(cfg, 'model', 'test_dataloader.dataset')
    model, properties = build_model(cfg, checkpoint[0] if checkpoint else None)
    size = tuple(args.size) if args.size else size_of_input(cfg)
    size = onnx_files.traced_size(size) if args.dynamic else size
    settings = dict(backbone_only=args.backbone_only, batch=args.batch)
    for graph in graphs.graphs_of(model, size, **settings):
        path = Path(out).with_name(f'{Path(out).stem}{graph.part}.onnx')
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx_files.export(graph, path, args.dynamic, properties, _say)
        details = f'{", ".join(graph.inputs)} -> {", ".join(graph.outputs)}'
        if args.check:
            others = onnx_files.other_sizes(model, size, graph.part, **settings)
            worst = onnx_files.check(graph, path, others if args.dynamic else ())
            details += f'; differs from PyTorch by {worst:.1e} at most'
        wrote(path, details)


def size_of_input(cfg: Config) -> tuple[int, int]:
    """Height and width at which a photo reaches the model in the test of a config; says so."""
    found = pipeline_size(cfg)
    if found is None:
        _say('size 512 x 512: the test pipeline names none; --size HEIGHT WIDTH sets another')
        return 512, 512
    settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    tested = settings.get('test_cfg') or {}
    height, width = found.expected(
        settings.get('pad_size_divisor') or tested.get('size_divisor') or 1
    )
    _say(f'size {height} x {width} (height x width), from the test pipeline; --size sets another')
    return height, width


def build_model(cfg: Config, checkpoint: str | None) -> tuple[nn.Module, dict[str, str]]:
    """The model with its weights, and the metadata of its file: of the input, and the classes."""
    weights: dict[str, Any] = {} if checkpoint is None else read_checkpoint(checkpoint)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(without_init_cfg(cfg.model))
    if checkpoint is None:
        warn('no checkpoint: the file gets random weights')
    else:
        load_weights(model, weights, checkpoint)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        meta = meta_of_model(cfg, weights, checkpoint or '')
    prepared = {
        **(cfg.get('data_preprocessor') or {}),
        **(cfg.model.get('data_preprocessor') or {}),
    }
    names = ('mean', 'std', 'bgr_to_rgb', 'to_rgb')
    properties = {name: prepared[name] for name in names if prepared.get(name) is not None}
    properties['classes'] = list(meta['classes'] or [])
    if getattr(getattr(model, 'decode_head', None), 'out_channels', None) == 1:
        properties['threshold'] = model.decode_head.threshold
    return model, {key: json.dumps(value) for key, value in properties.items()}


def write_table(path: Path, pattern: str) -> None:
    """Write the rows of the families that match a pattern, and print them."""
    check_output_file(path, '--table', suffixes=['.md'])

    found = False
    for name, cells in table.update(path, pattern, _say):  # a row is printed when it is written
        found = True
        print(name, *cells.values(), sep=' | ', flush=True)
    if not found:
        raise UserError(f'--only {pattern!r} matches no family')


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
