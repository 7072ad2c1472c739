# Blocked local self-attention (block 8, halo 3) in place of the 3x3 convolutions of c5.
backbone = dict(
    type='hybrid_mm.HaloNet',
    arch=dict(
        depths=(3, 4, 6, 3),
        channels=(96, 192, 384, 768),
        attention=(False, False, False, True),
        stem=dict(kind='7x7', channels=24, pool=True),
    ),
)
widths = [96, 192, 384, 768]
host = 'resnet'
