"""Export a backbone, segmenter, classifier or detector to ONNX, and compare it with onnxruntime.

python tools/export_onnx.py CONFIG [CHECKPOINT] OUT.onnx --size 512 512 --check
python tools/export_onnx.py CONFIG [CHECKPOINT] OUT.onnx --size 512 512 --dynamic --backbone-only
python tools/export_onnx.py --table docs/export.md --only 'VAN*'

Input is `image`, (N, 3, H, W), prepared as the test pipeline does it; the file's metadata name mean
and std, the order of the channels and the classes. Outputs are raw:
  backbone        map_0, map_1, ... at strides 4, 8, 16, 32
  segmentation    logits (N, classes, H / 4, W / 4) of most heads, not resized; with out_channels=1
                  one channel: class 1 where its sigmoid exceeds the metadata's threshold
  classification  cls_score (N, classes)
  RetinaNet etc.  cls_score_i, bbox_pred_i of every level, not decoded
  Mask R-CNN      OUT.onnx: pyramid_i, rpn_cls_score_i, rpn_bbox_pred_i, and OUT_rois.onnx, from
                  rois (n, 5) and pyramid_i to cls_score, bbox_pred, mask_logits
See docs/export.md for what exports and what does not.
"""

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
from hybrid_mm.export import graphs, onnx_files
from hybrid_mm.run import options
from hybrid_mm.run.checks.classes import meta_of_model
from hybrid_mm.run.config import load_config, require, without_init_cfg
from hybrid_mm.run.outputs import check_output_file, writing
from hybrid_mm.run.published import checkpoint_of
from hybrid_mm.run.tool import tool


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Flags of export_onnx.py; ``files`` holds a config and a new file, or nothing (--table)."""
    parser = options.parser(__doc__)
    parser.add_argument(
        'files', nargs='*', metavar='CONFIG [CHECKPOINT] OUT.onnx', help='config, weights, new file'
    )
    parser.add_argument('--backbone-only', action='store_true', help='the backbone of the model')
    parser.add_argument('--dynamic', action='store_true', help='leave height and width open')
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        default=(512, 512),
        metavar=('H', 'W'),
        help='of the image (default: 512 512); with --dynamic near what is traced',
    )
    parser.add_argument('--batch', type=int, default=1, help='images (default: 1)')
    parser.add_argument(
        '--check', action='store_true', help='compare the file with PyTorch, and fail if it differs'
    )
    parser.add_argument('--table', metavar='FILE', type=Path, help='export one of each family')
    parser.add_argument('--only', metavar='PATTERN', default='*', help='rows of the table')
    options.add_config_options(parser)
    args = parser.parse_args(argv)
    if args.table:
        if args.files:
            parser.error('--table takes no config')
        return args
    if len(args.files) not in (2, 3) or not args.files[-1].endswith('.onnx'):
        parser.error('expected CONFIG [CHECKPOINT] OUT.onnx')
    if min(*args.size, args.batch) < 1:
        parser.error(f'--size and --batch must be positive, got {args.size} and {args.batch}')
    return args


@tool
def main(argv: list[str] | None = None) -> None:
    """Write the file or files of a model and print their inputs and outputs, or write the table."""
    args = parse_args(argv)
    if args.table:
        write_table(args.table, args.only)
        return
    config, *checkpoint, out = args.files
    checkpoint = [checkpoint_of(config, name) for name in checkpoint]
    check_output_file(out, 'output', inputs=[config, *checkpoint])
    cfg = load_config(config, args.cfg_options)
    require(cfg, 'model', 'test_dataloader.dataset')
    model, properties = build_model(cfg, checkpoint[0] if checkpoint else None)
    size = onnx_files.traced_size(args.size) if args.dynamic else tuple(args.size)
    settings = dict(backbone_only=args.backbone_only, batch=args.batch)
    for graph in graphs.graphs_of(model, size, **settings):
        path = Path(out).with_name(f'{Path(out).stem}{graph.part}.onnx')
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx_files.export(graph, path, args.dynamic, properties)
        line = f'{path}: {", ".join(graph.inputs)} -> {", ".join(graph.outputs)}'
        if args.check:
            others = onnx_files.other_sizes(model, size, graph.part, **settings)
            worst = onnx_files.check(graph, path, others if args.dynamic else ())
            line += f'; differs from PyTorch by {worst:.1e} at most'
        print(line)


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
    from hybrid_mm.export import table  # which knows all networks

    check_output_file(path, '--table', suffixes=['.md'])

    def say(name: str) -> None:
        print(f'{name} ...', file=sys.stderr, flush=True)

    found = dict(table.update(path, pattern, say))
    if not found:
        raise UserError(f'--only {pattern!r} matches no family')
    for name, cells in found.items():
        print(name, *cells.values(), sep=' | ')


if __name__ == '__main__':
    sys.exit(main())
