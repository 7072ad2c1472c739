"""Data preprocessor of MMSegmentation for images of any number of channels."""

from mmseg.models.data_preprocessor import SegDataPreProcessor

from hybrid_mm.openmmlab.channel_statistics import AnyChannels

__all__ = ['MultichannelSegDataPreProcessor']


class MultichannelSegDataPreProcessor(AnyChannels, SegDataPreProcessor):
    """MMSegmentation's ``SegDataPreProcessor`` with a mean and std for each channel.

    Args:
        mean: Mean of each channel, in the units of the loaded images.
        std: Standard deviation of each channel.
        kwargs: Those of ``SegDataPreProcessor``.
    """
