# Runtime of all configs; default_runtime_{cls,det,seg}.py add what depends on the task.
custom_imports = dict(imports=['hybrid_mm'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='hybrid_mm.AtomicCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    non_finite_loss=dict(type='hybrid_mm.NonFiniteLossHook'),
)

env_cfg = dict(
    # True, as in MMSegmentation's configs, lets cuDNN measure its algorithms anew at every start:
    # a resumed training is not bit-identical. --cfg-options env_cfg.cudnn_benchmark=True
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

# Curves and pictures go to files under the work dir; --tensorboard and --wandb of our tools add
# others, and so does VIS_BACKENDS=LocalVisBackend,TensorboardVisBackend in the environment.
vis_backends = [
    dict(type=name)
    for name in '{{$VIS_BACKENDS:LocalVisBackend}}'.split(',')  # noqa: SIM905
]
visualizer = dict(vis_backends=vis_backends, name='visualizer')

log_level = 'INFO'
load_from = None
resume = False
