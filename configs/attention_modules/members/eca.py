# Efficient channel attention in every block, with the kernel sizes of the released ResNet-50.
backbone = dict(
    type='hybrid_mm.PluginResNet',
    depth=50,
    plugins=[
        dict(
            cfg=dict(type='hybrid_mm.ECA', kernel_size=3),
            stages=(True, False, False, False),
            position='after_conv3',
        ),
        dict(
            cfg=dict(type='hybrid_mm.ECA', kernel_size=5),
            stages=(False, True, True, False),
            position='after_conv3',
        ),
        dict(
            cfg=dict(type='hybrid_mm.ECA', kernel_size=7),
            stages=(False, False, False, True),
            position='after_conv3',
        ),
    ],
)
