# Learned queries in the first stages, attention in windows in the last ones.
backbone = dict(
    type='hybrid_mm.QnAViT',
    arch=dict(
        embed_dim=32,
        qna_depths=(2, 3, 2, 0),
        qna_heads=(4, 8, 16, 32),
        kernel_sizes=(3, 3, 3, 3),
        window_depths=(0, 0, 4, 2),
        window_sizes=(7, 7, 14, 7),
        window_heads=(2, 4, 8, 16),
    ),
)
widths = [32, 64, 128, 256]
