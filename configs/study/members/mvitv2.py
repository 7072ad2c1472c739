# Pooling attention; windows in all blocks but the last of a stage.
backbone = dict(
    type='hybrid_mm.MViTv2',
    arch=dict(embed_dim=32, heads=1, depths=(1, 2, 4, 3)),
    img_size=(256, 320),
    window_size=None,
    double_kv_stride=False,
)
widths = [32, 64, 128, 256]
