# The paper follows ConvNeXt and states no values: these are those of ConvNeXt's file of this size,
# with the SyncBN and float32 of SLaK's detectors.
_base_ = './cascade-mask-rcnn_pelk-tiny_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://pelk-small_in1k'
model = dict(backbone=dict(arch='small', drop_path_rate=0.6, init_cfg=dict(checkpoint=checkpoint)))
