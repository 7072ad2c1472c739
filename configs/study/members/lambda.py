# Lambda layers in place of the 3x3 convolutions of c5.
backbone = dict(
    type='hybrid_mm.AttentionResNet',
    base='hybrid_mm.PluginResNet',
    depth=50,
    base_channels=24,
    norm_eval=False,
    conv2=dict(
        cfg=dict(type='hybrid_mm.LambdaLayer', num_heads=4, key_channels=16, window=9),
        stages=(False, False, False, True),
    ),
)
widths = [96, 192, 384, 768]
host = 'resnet'
