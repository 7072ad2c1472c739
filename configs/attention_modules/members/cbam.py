# Convolutional block attention module in every block.
backbone = dict(
    type='hybrid_mm.PluginResNet',
    depth=50,
    plugins=[dict(cfg=dict(type='hybrid_mm.CBAM', ratio=16), position='after_conv3')],
)
