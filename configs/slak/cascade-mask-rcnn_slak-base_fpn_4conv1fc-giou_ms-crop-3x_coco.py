# Results are quoted by the PeLK paper. SLaK has no file of this size: drop path and decay of the
# learning rate are ConvNeXt-B's.
_base_ = './cascade-mask-rcnn_slak-tiny_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://slak-base_in1k'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.7, init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[166, 332, 665, 1331]),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
