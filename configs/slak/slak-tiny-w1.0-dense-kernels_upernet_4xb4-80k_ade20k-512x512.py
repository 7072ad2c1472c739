_base_ = './slak-tiny-w1.0_upernet_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://slak-tiny-w1.0-dense-kernels_120e_in1k'
model = dict(backbone=dict(decomposed=False, init_cfg=dict(checkpoint=checkpoint)))
custom_keys = _base_.optim_wrapper.paramwise_cfg.custom_keys  # no branches tall and wide
custom_keys['large.norm'] = custom_keys.pop('tall.norm')
custom_keys.pop('wide.norm')
