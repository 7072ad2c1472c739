_base_ = './hornet-small_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(decode_head=dict(type='hybrid_mm.HorUPerHead'))
