# Segmenter of MaxViT in TensorFlow's model garden: three 3x3 convolutions on the finest of three
# levels of an FPN, at stride 8. The other two outputs are not read. For crops of 512 x 512 of
# Pascal VOC, 21 classes.
_base_ = './fpn_r50.py'

norm_cfg = dict(type='SyncBN', momentum=0.01, eps=1e-3, requires_grad=True)
model = dict(
    data_preprocessor=dict(test_cfg=dict(size=(512, 512))),  # grids as in training
    neck=dict(start_level=1, num_outs=3, norm_cfg=norm_cfg, no_norm_on_lateral=True),
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=256,
        in_index=0,
        channels=256,
        num_convs=3,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=21,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True),
    ),
)
find_unused_parameters = True
