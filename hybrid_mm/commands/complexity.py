"""What ``tools/complexity.py`` does once its arguments are read."""

import argparse
import json

from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from hybrid_mm.analysis.complexity import count, learns_proposals
from hybrid_mm.analysis.feature_maps import input_channels
from hybrid_mm.analysis.networks import (
    accepted_size,
    build_model,
    build_network,
    one_line,
    quiet,
    task_of_model,
)
from hybrid_mm.errors import UserError
from hybrid_mm.run.config import literal_spec, load_config, require, without_init_cfg
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_file, replacing

DEFAULT_SHAPES = {'detection': (800, 1280), 'segmentation': (512, 512), 'pose': (256, 192)}


def run(args: argparse.Namespace) -> None:
    """Print parameters and multiply-adds by module, as a table or JSON."""
    if args.json:
        check_output_file(args.json, '--json', inputs=[args.config] if args.config else [])
    model, size = _build(args)
    name = type(model).__name__
    try:
        if args.shape:
            shape = tuple(args.shape) if len(args.shape) > 1 else (args.shape[0], args.shape[0])
        else:
            channels = input_channels(model)
            size = accepted_size(lambda size: count(model, (channels, *size)), model, size, name)
            shape = size if channels == 3 else (channels, *size)
        rows = count(model, shape)
    except UserError:
        raise
    except Exception as error:  # of a foreign model
        if isinstance(error, ValueError) and args.shape:
            raise UserError(f'--shape: {error}') from error
        where = f' at {" x ".join(map(str, args.shape))}' if args.shape else ''
        raise UserError(f'{name} cannot be counted{where}: {one_line(error)}') from error
    depth = [row.name.count('.') + bool(row.name) for row in rows]
    rows = [r for r, d in zip(rows, depth, strict=True) if d <= args.depth and r.params + r.macs]
    _print(rows, type(model).__name__, shape)
    if args.json:
        figures = dict(shape=shape, modules=[row._asdict() for row in rows])
        figures.update(params=rows[0].params, macs=rows[0].macs)
        with replacing(args.json) as path:
            path.write_text(json.dumps(figures, indent=1))
        wrote(args.json)


def _build(args: argparse.Namespace) -> tuple[nn.Module, tuple[int, int]]:
    """Build the model without pretrained weights; return it with the usual size of its images."""
    if not args.config:
        return build_network(without_init_cfg(_backbone(args))), (224, 224)
    cfg = load_config(args.config, args.cfg_options)
    require(cfg, 'model')
    model = build_model(cfg)
    if learns_proposals(model):  # boxes of other initial values are none
        with quiet():
            model.init_weights()
    return model, DEFAULT_SHAPES.get(task_of_model(model), (224, 224))


def _backbone(args) -> dict:
    if args.arch:
        return dict(type='hybrid_mm.VAN', arch=args.arch)
    return literal_spec(args.backbone, '--backbone ')


def _print(rows, name: str, shape: tuple[int, ...]) -> None:

    size = ' x '.join(str(n) for n in shape)
    table = Table(box=box.SIMPLE, title=f'{name} at {size}', title_justify='left')
    table.add_column('module')
    for column in ('parameters', 'GMACs'):
        table.add_column(column, justify='right')
    for row in rows:
        indent = '  ' * (row.name.count('.') + bool(row.name))
        table.add_row(
            indent + (row.name.rpartition('.')[2] or 'total'),
            f'{row.params:,}',
            f'{row.macs / 1e9:.3f}',
        )
    Console().print(table)
