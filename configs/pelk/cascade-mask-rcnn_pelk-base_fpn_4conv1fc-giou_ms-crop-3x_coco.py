# The paper follows ConvNeXt and states no values: these are those of ConvNeXt's file of this size,
# with the SyncBN and float32 of SLaK's detectors.
_base_ = './cascade-mask-rcnn_pelk-tiny_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://pelk-base_in1k'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.7, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[166, 332, 665, 1331]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
