checkpoint = (
    'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
    'swin_base_patch4_window7_224.pth'
)
backbone = dict(
    type='mmdet.SwinTransformer',
    embed_dims=128,
    depths=(2, 2, 18, 2),
    num_heads=(4, 8, 16, 32),
    window_size=7,
    convert_weights=True,
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
)
widths = [128, 256, 512, 1024]
