# As schedule_160k_adamw_convnext.py without weight decay for position embeddings.
_base_ = './schedule_160k_adamw_convnext.py'

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(pos_embed=dict(decay_mult=0.0))))
