_base_ = './vit-base_upernet-mln_8xb2-160k_ade20k-512x512.py'

model = dict(backbone=dict(final_norm=True, drop_path_rate=0.1))
