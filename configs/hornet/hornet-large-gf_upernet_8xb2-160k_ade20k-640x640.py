_base_ = './hornet-large_upernet_8xb2-160k_ade20k-640x640.py'

checkpoint = 'hybrid_mm://hornet-large-gf_in22k-384'
model = dict(backbone=dict(arch='large-gf384', with_cp=True, init_cfg=dict(checkpoint=checkpoint)))
optim_wrapper = dict(clip_grad=dict(max_norm=0.1, norm_type=2))
