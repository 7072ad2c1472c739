# Global context head with an FCN auxiliary head on a ResNet-50 of stride 8, 150 classes (ADE20K),
# crops of 512 x 512.
_base_ = './upernet_r50.py'

model = dict(
    backbone=dict(dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1)),
    decode_head=dict(
        _delete_=True,
        type='GCHead',
        in_channels=2048,
        in_index=3,
        channels=512,
        ratio=1 / 4,
        pooling_type='att',
        fusion_types=('channel_add',),
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
)
