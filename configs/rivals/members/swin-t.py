checkpoint = (
    'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
    'swin_tiny_patch4_window7_224.pth'
)
backbone = dict(
    type='mmdet.SwinTransformer',
    embed_dims=96,
    depths=(2, 2, 6, 2),
    num_heads=(3, 6, 12, 24),
    window_size=7,
    convert_weights=True,
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
)
widths = [96, 192, 384, 768]
