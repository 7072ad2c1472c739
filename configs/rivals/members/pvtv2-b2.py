checkpoint = 'https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b2.pth'
backbone = dict(
    type='mmdet.PyramidVisionTransformerV2',
    embed_dims=64,
    num_layers=(3, 4, 6, 3),
    drop_path_rate=0.1,
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
)
widths = [64, 128, 320, 512]
