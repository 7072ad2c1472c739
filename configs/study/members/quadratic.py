# Quadratic attention with nine heads in place of all 3x3 convolutions.
backbone = dict(
    type='hybrid_mm.QuadraticAttentionResNet',
    arch=dict(
        stem=24,
        bottleneck=True,
        depths=(3, 4, 6, 3),
        widths=(24, 48, 96, 192),
        out_channels=(96, 192, 384, 768),
    ),
)
widths = [96, 192, 384, 768]
host = 'resnet'
