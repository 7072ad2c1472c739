# The paper follows ConvNeXt and states no values: these are those of ConvNeXt's file of this size,
# with the SyncBN and float32 of SLaK's detectors.
_base_ = './cascade-mask-rcnn_pelk-base_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'hybrid_mm://pelk-base-101_in1k'
model = dict(
    backbone=dict(
        kernel_sizes=(101, 69, 67, 13), center_size=7, init_cfg=dict(checkpoint=checkpoint)
    )
)
