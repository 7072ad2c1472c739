checkpoint = (
    'https://download.openmmlab.com/mmclassification/v0/convnext/downstream/'
    'convnext-small_3rdparty_32xb128-noema_in1k_20220301-303e75e3.pth'
)
backbone = dict(
    type='mmpretrain.ConvNeXt',
    arch='small',
    out_indices=(0, 1, 2, 3),
    layer_scale_init_value=1.0,
    gap_before_final_norm=False,
    init_cfg=dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.'),
)
widths = [96, 192, 384, 768]
