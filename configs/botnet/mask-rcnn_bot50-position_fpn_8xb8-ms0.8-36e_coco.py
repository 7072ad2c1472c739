_base_ = './mask-rcnn_bot50_fpn_8xb8-ms0.8-36e_coco.py'

checkpoint = 'checkpoints/bot50-position-s1_in1k.pth'
model = dict(backbone=dict(content=False, init_cfg=dict(checkpoint=checkpoint)))
