# Stand-alone self-attention in place of all 3x3 convolutions, convolution stem.
backbone = dict(
    type='hybrid_mm.SASAResNet',
    arch=dict(
        stem=24,
        bottleneck=True,
        depths=(3, 4, 6, 3),
        widths=(24, 48, 96, 192),
        out_channels=(96, 192, 384, 768),
    ),
    heads=4,
)
widths = [96, 192, 384, 768]
host = 'resnet'
