# Global context block of ratio 1/4 in every block of c3 to c5.
backbone = dict(
    type='hybrid_mm.PluginResNet',
    depth=50,
    plugins=[
        dict(
            cfg=dict(type='hybrid_mm.ContextBlock', ratio=1 / 4),
            stages=(False, True, True, True),
            position='after_conv3',
        )
    ],
)
