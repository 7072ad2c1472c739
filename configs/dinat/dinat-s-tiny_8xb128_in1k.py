_base_ = './dinat-mini_8xb128_in1k.py'

model = dict(backbone=dict(type='hybrid_mm.DiNATs', arch='tiny'), head=dict(in_channels=768))
