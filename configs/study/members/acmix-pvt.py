# PVT whose attention is ACmix.
backbone = dict(
    type='hybrid_mm.PVT',
    arch=dict(
        depths=(2, 2, 2, 2),
        embed_dims=(32, 64, 128, 256),
        heads=(1, 2, 4, 8),
        mlp_ratios=(8, 8, 4, 4),
        reductions=(8, 4, 2, 1),
    ),
    img_size=(256, 320),
    acmix=True,
)
widths = [32, 64, 128, 256]
host = 'pvt'
