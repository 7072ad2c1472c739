# AdamW for UperNet in SLaK's studies: 80k iterations, 800 of warm-up, linear decay to 0, no weight
# decay for batch norms. The official rule exempts all norms, but does not see SLaK's own class of
# layer norms, which decay.
_base_ = './schedule_160k_adamw.py'

train_cfg = dict(max_iters=80000, val_interval=8000)
_base_.param_scheduler[0].end = 800
_base_.param_scheduler[1].end = 80000
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        custom_keys={
            'backbone': dict(decay_mult=1.0),
            'tall.norm': dict(decay_mult=0.0),
            'wide.norm': dict(decay_mult=0.0),
            'small.norm': dict(decay_mult=0.0),
        },
    ),
)

# 4 GPUs x 4 crops
