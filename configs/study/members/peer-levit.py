# MMPretrain's LeViT, which takes square images only.
backbone = dict(
    type='hybrid_mm.StudySquareLeViT',
    embed_dims=(160, 256),
    key_dims=(16, 16),
    num_heads=(5, 8),
    depths=(5, 4),
    img_size=(256, 320),
)
widths = [40, 80, 160, 256]
peer_of = 'levit-square'
