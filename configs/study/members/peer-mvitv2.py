# MMPretrain's MViTv2, whose tables of positions are of square images only.
backbone = dict(
    type='hybrid_mm.StudySquare',
    backbone=dict(
        type='mmpretrain.MViT',
        arch=dict(embed_dims=32, num_layers=10, num_heads=1, downscale_indices=[1, 3, 7]),
        out_scales=[0, 1, 2, 3],
    ),
    img_size=(256, 320),
)
widths = [32, 64, 128, 256]
peer_of = 'mvitv2-square'
