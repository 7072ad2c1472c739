# LeViT on square images, as its peer.
backbone = dict(
    type='hybrid_mm.StudySquare',
    backbone=dict(
        type='hybrid_mm.LeViT',
        arch=dict(
            embed_dims=(160, 256),
            key_dims=(16, 16),
            heads=(5, 8),
            depths=(5, 4),
            mlp_ratios=(2, 2),
            value_ratios=(2, 2),
            shrink_heads=(None, 10),
            shrink_key_dims=(None, 16),
            shrink_value_ratios=(None, 4),
            shrink_mlp_ratios=(None, 2),
        ),
    ),
    img_size=(256, 320),
)
widths = [40, 80, 160, 256]
only_pair = True
