# Coordinate attention in every block; published for MobileNets, so that the place is our choice.
backbone = dict(
    type='hybrid_mm.PluginResNet',
    depth=50,
    plugins=[
        dict(cfg=dict(type='hybrid_mm.CoordinateAttention', ratio=32), position='after_conv3')
    ],
)
