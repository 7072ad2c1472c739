_base_ = './dinat-large_8xb64-30e_in1k.py'

checkpoint = 'hybrid_mm://dinat-s-large_in22k'
model = dict(backbone=dict(type='hybrid_mm.DiNATs', init_cfg=dict(checkpoint=checkpoint)))
