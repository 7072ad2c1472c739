_base_ = './resnet50-gcb-r16-c3-c5_8xb32-40e_in1k.py'

_base_.model.backbone.plugins[0].cfg.ratio = 1 / 4
