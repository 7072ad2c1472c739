_base_ = ['./recipes/cascade-mask-rcnn_convnext_ms-crop-3x_coco.py', './members/convnext-s.py']

model = dict(
    backbone=dict(_base_.backbone, drop_path_rate=0.6), neck=dict(in_channels=_base_.widths)
)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
