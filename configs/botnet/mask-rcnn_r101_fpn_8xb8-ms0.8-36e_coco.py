_base_ = './mask-rcnn_r50_fpn_8xb8-ms0.8-36e_coco.py'

checkpoint = 'torchvision://resnet101'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint=checkpoint)))
