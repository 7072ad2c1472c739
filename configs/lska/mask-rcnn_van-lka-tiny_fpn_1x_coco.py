# VAN-B0 with the recipe of the LSKA paper: kernel size 23 of its ablation.
_base_ = './mask-rcnn_van-lska-tiny_fpn_1x_coco.py'

checkpoint = 'hybrid_mm://van-b0_in1k'
model = dict(backbone=dict(attention='lka', init_cfg=dict(checkpoint=checkpoint)))
