# No official file: the recipe of the weights of ImageNet-21k (unverified).
_base_ = './cascade-mask-rcnn_mvitv2-large-in21k_fpn_8xb8-lsj-50e_coco.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='hybrid_mm://mvitv2-large_in1k')))
