# As schedule_160k_adamw.py with the names that our networks give to norms and tables of relative
# positions, which do not decay.
_base_ = './schedule_160k_adamw.py'

spared = dict(norm=dict(decay_mult=0.0), relative_bias=dict(decay_mult=0.0))
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=spared))
