checkpoint = (
    'https://download.openmmlab.com/mmclassification/v0/deit/'
    'deit-tiny_pt-4xb256_in1k_20220218-13b382a0.pth'
)
backbone = dict(
    type='mmpretrain.VisionTransformer',
    arch='deit-tiny',
    img_size=512,
    patch_size=16,
    out_indices=(2, 5, 8, 11),
    out_type='featmap',
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
)
widths = [192] * 4
