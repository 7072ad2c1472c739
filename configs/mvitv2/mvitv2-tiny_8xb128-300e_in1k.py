# The rate is 2.5e-4 for 256 images; the batch size is ours.
_base_ = [
    '../_base_/models/classifier_deit.py',
    '../_base_/datasets/imagenet_1k_deit.py',
    '../_base_/schedules/imagenet_bs1024_adamw_300e_mvitv2.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        type='hybrid_mm.MViTv2',
        arch='tiny',
        window_size=None,
        double_kv_stride=False,
        drop_path_rate=0.1,
        out_indices=(3,),
    ),
    head=dict(in_channels=768),
)
_base_.train_dataloader.dataset.pipeline[3].num_policies = 6
