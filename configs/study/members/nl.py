# One non-local block (embedded Gaussian) before the last block of c4.
backbone = dict(
    type='hybrid_mm.AttentionResNet',
    base='hybrid_mm.PluginResNet',
    depth=50,
    base_channels=24,
    norm_eval=False,
    stage_plugins=dict(
        cfg=dict(type='hybrid_mm.NonLocal2d', use_scale=False),
        stages=(False, False, True, False),
        position='before_last_block',
    ),
)
widths = [96, 192, 384, 768]
host = 'resnet'
