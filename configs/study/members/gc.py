# Global context block of ratio 1/4 in every block of c3 to c5.
backbone = dict(
    type='hybrid_mm.PluginResNet',
    depth=50,
    base_channels=24,
    norm_eval=False,
    plugins=[
        dict(
            cfg=dict(type='hybrid_mm.ContextBlock', ratio=0.25),
            stages=(False, True, True, True),
            position='after_conv3',
        )
    ],
)
widths = [96, 192, 384, 768]
host = 'resnet'
