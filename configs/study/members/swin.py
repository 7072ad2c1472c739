# Swin Transformer of MMDetection: the host of everything that changes a Swin.
backbone = dict(
    type='mmdet.SwinTransformer',
    embed_dims=40,
    depths=(2, 2, 4, 2),
    num_heads=(2, 4, 8, 16),
    window_size=7,
    drop_path_rate=0.0,
)
widths = [40, 80, 160, 320]
