"""Data preprocessor of MMDetection for images of any number of channels."""

from mmdet.models.data_preprocessors import DetDataPreprocessor

from hybrid_mm.openmmlab.channel_statistics import AnyChannels

__all__ = ['MultichannelDetDataPreprocessor']


class MultichannelDetDataPreprocessor(AnyChannels, DetDataPreprocessor):
    """MMDetection's ``DetDataPreprocessor`` with a mean and std for each channel.

    Args:
        mean: Mean of each channel, in the units of the loaded images.
        std: Standard deviation of each channel.
        kwargs: Those of ``DetDataPreprocessor``.
    """
