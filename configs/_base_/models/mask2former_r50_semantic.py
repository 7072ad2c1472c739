# Mask2Former for semantic segmentation of ADE20K's 150 classes on a ResNet-50: the head of
# MMSegmentation around that of MMDetection.
_base_ = './mask2former_r50.py'

num_classes = 150
head = _base_.model.panoptic_head
model = dict(
    _delete_=True,
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=_base_.model.backbone,
    decode_head=dict(
        type='Mask2FormerHead',
        in_channels=[256, 512, 1024, 2048],
        strides=[4, 8, 16, 32],
        feat_channels=256,
        out_channels=256,
        num_classes=num_classes,
        num_queries=100,
        num_transformer_feat_level=3,
        align_corners=False,
        pixel_decoder=dict(head.pixel_decoder, type='mmdet.MSDeformAttnPixelDecoder'),
        enforce_decoder_input_project=False,
        positional_encoding=head.positional_encoding,
        transformer_decoder=head.transformer_decoder,
        loss_cls=dict(
            head.loss_cls,
            type='mmdet.CrossEntropyLoss',
            class_weight=[1.0] * num_classes + [0.1],
        ),
        loss_mask=dict(head.loss_mask, type='mmdet.CrossEntropyLoss'),
        loss_dice=dict(head.loss_dice, type='mmdet.DiceLoss'),
        train_cfg=dict(
            num_points=12544,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type='mmdet.HungarianAssigner',
                match_costs=[
                    dict(type='mmdet.ClassificationCost', weight=2.0),
                    dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
                    dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
                ],
            ),
            sampler=dict(type='mmdet.MaskPseudoSampler'),
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
del head
