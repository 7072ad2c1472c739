# Triplet attention in every block.
backbone = dict(
    type='hybrid_mm.PluginResNet',
    depth=50,
    plugins=[
        dict(cfg=dict(type='hybrid_mm.TripletAttention', kernel_size=7), position='after_conv3')
    ],
)
