# In the official code; the paper has no result for it.
_base_ = './van-b1_fpn_8xb4-40k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-b4_in1k'
model = dict(backbone=dict(arch='b4', drop_path_rate=0.4, init_cfg=dict(checkpoint=checkpoint)))
