# The recipe is that of ConvNeXt (unverified): the paper gives no details.
_base_ = './cascade-mask-rcnn_pelk-base_fpn_4conv1fc-giou_ms-crop-3x_coco.py'

checkpoint = 'checkpoints/pelk-base-101_in1k.pth'
model = dict(
    backbone=dict(
        kernel_sizes=(101, 69, 67, 13), center_size=7, init_cfg=dict(checkpoint=checkpoint)
    )
)
