_base_ = ['./recipes/cascade-mask-rcnn_convnext_ms-crop-3x_coco.py', './members/convnext-b.py']

model = dict(
    backbone=dict(_base_.backbone, drop_path_rate=0.7), neck=dict(in_channels=_base_.widths)
)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12, decay_rate=0.8))
