# MMPretrain's VAN.
backbone = dict(
    type='mmpretrain.VAN',
    arch=dict(embed_dims=(32, 64, 128, 256), depths=(2, 2, 5, 2), ffn_ratios=(4, 4, 4, 4)),
    out_indices=(0, 1, 2, 3),
)
widths = [32, 64, 128, 256]
peer_of = 'van'
