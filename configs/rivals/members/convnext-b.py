checkpoint = (
    'https://download.openmmlab.com/mmclassification/v0/convnext/downstream/'
    'convnext-base_3rdparty_32xb128-noema_in1k_20220301-2a0ee547.pth'
)
backbone = dict(
    type='mmpretrain.ConvNeXt',
    arch='base',
    out_indices=(0, 1, 2, 3),
    layer_scale_init_value=1.0,
    gap_before_final_norm=False,
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
)
widths = [128, 256, 512, 1024]
