# Runtime of segmentation configs (scope mmseg).
default_scope = 'mmseg'
custom_imports = dict(imports=['hybrid_mm'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='hybrid_mm.AtomicCheckpointHook', by_epoch=False, interval=4000, max_keep_ckpts=3
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    non_finite_loss=dict(type='hybrid_mm.NonFiniteLossHook'),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(by_epoch=False)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

# Curves and pictures go to files under the work dir; --tensorboard and --wandb of our tools add
# others, and so does VIS_BACKENDS=LocalVisBackend,TensorboardVisBackend in the environment.
vis_backends = [
    dict(type=name)
    for name in '{{$VIS_BACKENDS:LocalVisBackend}}'.split(',')  # noqa: SIM905
]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')

log_level = 'INFO'
load_from = None
resume = False

# Test-time augmentation; the pipeline stands in the data set files.
tta_model = dict(type='SegTTAModel')
