# A ViT with relative positions, which isotropic DiNAT is compared with: a Swin Transformer of one
# stage, whose window is the whole map.
_base_ = './nat-iso-small_8xb128_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch=dict(embed_dims=384, depths=[12], num_heads=[12]),
        img_size=224,
        patch_size=16,
        window_size=14,
        drop_path_rate=0.1,
        out_indices=(0,),
    )
)
