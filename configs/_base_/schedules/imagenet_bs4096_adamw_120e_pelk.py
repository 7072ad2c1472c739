# As imagenet_bs4096_adamw_120e.py without weight decay for position embeddings.
_base_ = './imagenet_bs4096_adamw_120e.py'

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(pos_embed=dict(decay_mult=0.0))))
