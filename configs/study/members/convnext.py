# ConvNeXt of MMPretrain: the host of SLaK and PeLK.
backbone = dict(
    type='mmpretrain.ConvNeXt',
    arch=dict(depths=(2, 2, 6, 2), channels=(40, 80, 160, 320)),
    out_indices=(0, 1, 2, 3),
    gap_before_final_norm=False,
)
widths = [40, 80, 160, 320]
