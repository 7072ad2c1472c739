# VAN with undivided separable kernels of 23.
backbone = dict(
    type='hybrid_mm.VAN',
    arch=dict(embed_dims=(32, 64, 128, 256), depths=(2, 2, 5, 2), mlp_ratios=(4, 4, 4, 4)),
    attention='lska_trivial',
    kernel_size=23,
)
widths = [32, 64, 128, 256]
host = 'van'
