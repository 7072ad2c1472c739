# Pairwise self-attention network with windows of 5.
backbone = dict(
    type='hybrid_mm.SAN',
    arch=dict(
        stem_channels=32,
        stem_depth=1,
        stem_kernel_size=3,
        depths=(1, 2, 4, 2),
        channels=(128, 256, 512, 1024),
        kernel_sizes=(5, 5, 5, 5),
    ),
    attention='pairwise',
)
widths = [128, 256, 512, 1024]
