# Convolutional block attention module in every block.
backbone = dict(
    type='hybrid_mm.PluginResNet',
    depth=50,
    base_channels=24,
    norm_eval=False,
    plugins=[dict(cfg=dict(type='hybrid_mm.CBAM', ratio=16), position='after_conv3')],
)
widths = [96, 192, 384, 768]
host = 'resnet'
