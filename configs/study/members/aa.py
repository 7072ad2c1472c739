# Attention augmented 3x3 convolutions in c3 to c5; heads of at least 12 key channels.
backbone = dict(
    type='hybrid_mm.AAResNet',
    arch=dict(
        stem=24,
        bottleneck=True,
        depths=(3, 4, 6, 3),
        widths=(24, 48, 96, 192),
        out_channels=(96, 192, 384, 768),
    ),
    canvas_size=(256, 320),
    heads=4,
    min_key_dim=12,
)
widths = [96, 192, 384, 768]
host = 'resnet'
