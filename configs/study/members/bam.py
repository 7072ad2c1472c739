# Bottleneck attention module after each of the first three stages.
backbone = dict(
    type='hybrid_mm.AttentionResNet',
    base='hybrid_mm.PluginResNet',
    depth=50,
    base_channels=24,
    norm_eval=False,
    stage_plugins=dict(
        cfg=dict(type='hybrid_mm.BAM', ratio=16),
        stages=(True, True, True, False),
        position='after_stage',
    ),
)
widths = [96, 192, 384, 768]
host = 'resnet'
