# Global self-attention in place of the 3x3 convolutions of c5.
backbone = dict(
    type='hybrid_mm.BoTNet',
    arch=dict(
        depths=(3, 4, 6, 3),
        channels=(96, 192, 384, 768),
        attention=(False, False, False, True),
        stem=dict(kind='7x7', channels=24, pool=True),
    ),
    canvas_size=(256, 320),
)
widths = [96, 192, 384, 768]
host = 'resnet'
