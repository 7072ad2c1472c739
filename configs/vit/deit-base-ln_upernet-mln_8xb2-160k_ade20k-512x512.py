_base_ = './deit-base_upernet-mln_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(final_norm=True))
