# Convolutional embeddings and projections; it ends at stride 16.
backbone = dict(
    type='hybrid_mm.CvT',
    arch=dict(
        depths=(1, 2, 6),
        embed_dims=(24, 72, 192),
        heads=(1, 3, 6),
        mlp_ratios=(4, 4, 4),
        patch_sizes=(7, 3, 3),
        patch_strides=(4, 2, 2),
        patch_paddings=(2, 1, 1),
    ),
)
widths = [24, 72, 192]
