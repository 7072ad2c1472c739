# Hybrid Task Cascade with FPN on a ResNet-50, 80 classes: Cascade Mask R-CNN whose three mask heads
# pass their features on, and a semantic branch for the 183 labels of COCO-Stuff's maps.
_base_ = './cascade-mask-rcnn_r50_fpn.py'

mask_heads = [
    dict(
        type='HTCMaskHead',
        with_conv_res=stage > 0,
        num_convs=4,
        in_channels=256,
        conv_out_channels=256,
        num_classes=80,
        loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
    )
    for stage in range(3)
]

# as in MMDetection's HTC: each object takes its best proposals, if they overlap enough
stages = [
    dict(stage, assigner=dict(stage['assigner'], match_low_quality=True))
    for stage in _base_.model.train_cfg.rcnn
]
model = dict(
    type='HybridTaskCascade',
    data_preprocessor=dict(pad_seg=True),
    roi_head=dict(
        type='HybridTaskCascadeRoIHead',
        interleaved=True,
        mask_info_flow=True,
        mask_head=mask_heads,
        semantic_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[8],
        ),
        semantic_head=dict(
            type='FusedSemanticHead',
            num_ins=5,
            fusion_level=1,
            seg_scale_factor=1 / 8,
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            num_classes=183,
            loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.2),
        ),
    ),
    train_cfg=dict(rcnn=stages),
    test_cfg=dict(rcnn=dict(score_thr=0.001)),
)
