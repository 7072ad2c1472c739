_base_ = './mask-rcnn_r50-syncbn-gcb-r16-c3-c5_fpn_1x_coco.py'

_base_.model.backbone.plugins[0].cfg.fusion_types = ('channel_mul',)
