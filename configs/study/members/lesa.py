# Locally enhanced self-attention in c4 and c5.
backbone = dict(
    type='hybrid_mm.LESAResNet',
    arch=dict(
        stem=24,
        bottleneck=True,
        depths=(3, 4, 6, 3),
        widths=(24, 48, 96, 192),
        out_channels=(96, 192, 384, 768),
    ),
    canvas_size=(256, 320),
)
widths = [96, 192, 384, 768]
host = 'resnet'
