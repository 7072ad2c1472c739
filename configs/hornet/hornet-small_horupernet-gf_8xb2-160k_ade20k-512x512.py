_base_ = './hornet-small_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(decode_head=dict(type='hybrid_mm.HorUPerHead', filter_size=(32, 17)))
optim_wrapper = dict(clip_grad=dict(max_norm=0.1, norm_type=2))
