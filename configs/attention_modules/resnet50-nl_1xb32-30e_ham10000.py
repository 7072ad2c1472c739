_base_ = ['./recipes/1xb32-30e_ham10000.py', './members/nl.py']

checkpoint = 'hybrid_mm://resnet50-nl_in1k'
init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
model = dict(backbone=dict(_base_.backbone, init_cfg=init_cfg))
