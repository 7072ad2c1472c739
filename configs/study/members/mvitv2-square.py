# MViTv2 on square images, as its peer.
backbone = dict(
    type='hybrid_mm.StudySquare',
    backbone=dict(
        type='hybrid_mm.MViTv2',
        arch=dict(embed_dim=32, heads=1, depths=(1, 2, 4, 3)),
        window_size=None,
        double_kv_stride=False,
    ),
    img_size=(256, 320),
)
widths = [32, 64, 128, 256]
only_pair = True
