# MMPretrain's RepLKNet.
backbone = dict(
    type='mmpretrain.RepLKNet',
    arch=dict(
        large_kernel_sizes=(31, 29, 27, 13),
        layers=(2, 2, 5, 2),
        channels=(32, 64, 128, 256),
        small_kernel=5,
        dw_ratio=1.0,
    ),
    out_indices=(0, 1, 2, 3),
    drop_path_rate=0.0,
    norm_intermediate_features=True,
)
widths = [32, 64, 128, 256]
peer_of = 'replknet'
