_base_ = ['./recipes/cascade-mask-rcnn_swin_ms-crop-3x_coco.py', './members/swin-b.py']

model = dict(
    backbone=dict(_base_.backbone, drop_path_rate=0.3), neck=dict(in_channels=_base_.widths)
)
