# Kernels of 31, 29, 27 and 13.
backbone = dict(
    type='hybrid_mm.RepLKNet',
    arch=dict(
        kernel_sizes=(31, 29, 27, 13),
        depths=(2, 2, 5, 2),
        channels=(32, 64, 128, 256),
        small_kernel=5,
        dw_ratio=1.0,
    ),
    norm_outputs='all',
)
widths = [32, 64, 128, 256]
