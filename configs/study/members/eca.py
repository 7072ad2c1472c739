# Efficient channel attention in every block.
backbone = dict(
    type='hybrid_mm.PluginResNet',
    depth=50,
    base_channels=24,
    norm_eval=False,
    plugins=[dict(cfg=dict(type='hybrid_mm.ECA', kernel_size=3), position='after_conv3')],
)
widths = [96, 192, 384, 768]
host = 'resnet'
