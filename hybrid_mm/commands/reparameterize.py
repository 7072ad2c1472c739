"""What ``tools/reparameterize.py`` does once its arguments are read."""

import argparse

import torch
from mmengine.registry import MODELS, init_default_scope

import hybrid_mm.registry  # noqa: F401  (type='hybrid_mm.X')
from hybrid_mm.checkpoints import load_weights, read_checkpoint
from hybrid_mm.errors import UserError
from hybrid_mm.run.config import load_config, require, without_init_cfg
from hybrid_mm.run.console import wrote
from hybrid_mm.run.outputs import check_output_file, replacing
from hybrid_mm.run.published import checkpoint_of
from hybrid_mm.run.quiet import quietly

TOLERANCE = 1e-4  # relative to the largest value of a map


@quietly
def run(args: argparse.Namespace) -> None:
    """Write the merged checkpoint; print the parameters saved and the difference."""
    args.checkpoint = checkpoint_of(args.config, args.checkpoint)
    check_output_file(args.output, 'output', inputs=[args.config, args.checkpoint])
    cfg = load_config(args.config, args.cfg_options)
    require(cfg, 'model.backbone')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = MODELS.build(without_init_cfg(cfg.model)).eval()
    backbone = model.backbone
    if not hasattr(backbone, 'switch_to_deploy'):
        raise UserError(
            f'{args.config}: {type(backbone).__name__} has nothing to merge (no switch_to_deploy)'
        )
    if cfg.model.backbone.get('deploy'):
        raise UserError(f'{args.config}: model.backbone.deploy=True is the merged form already')
    checkpoint = read_checkpoint(args.checkpoint)
    load_weights(model, checkpoint, args.checkpoint)

    before = sum(p.numel() for p in backbone.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, backbone.in_channels, *args.shape, generator=generator)
    with torch.no_grad():
        expected = backbone(image)
        try:
            backbone.switch_to_deploy()
        except ValueError as error:
            raise UserError(f'{args.config}: {error}') from error
        found = backbone(image)
    worst = max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected, strict=True)
    )
    if not worst <= TOLERANCE:
        raise UserError(
            f'the merged backbone differs by {worst:.1e} of its largest value (allowed '
            f'{TOLERANCE:.0e}); nothing was written. Weights that are not finite, or statistics '
            'of batch norms near zero, can be the cause'
        )
    meta = dict(checkpoint.get('meta') or {}, reparameterized=True)
    with replacing(args.output) as path:
        torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    after = sum(p.numel() for p in backbone.parameters())
    wrote(
        args.output,
        f'backbone of {after:,} parameters (before: {before:,}), largest difference {worst:.1e}; '
        'use it with --cfg-options model.backbone.deploy=True',
    )
