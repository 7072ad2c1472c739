"""Test-time augmentation of segmenters, those with one channel for two classes included."""

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel
from mmseg.structures import SegDataSample

__all__ = ['SegmentationTTAModel']


class SegmentationTTAModel(SegTTAModel):
    """Test-time augmentation that averages probabilities.

    MMSegmentation's ``SegTTAModel``, but for segmenters with ``out_channels=1``: their
    ``seg_logits`` are probabilities already, to which it would apply the sigmoid once more.

    Args:
        module: Segmenter.
        kwargs: See MMEngine's ``BaseTTAModel``.
    """

    def merge_preds(self, data_samples_list: list[list[SegDataSample]]) -> list[SegDataSample]:
        """Merge the predictions of all augmentations of each image.

        Args:
            data_samples_list: For each image the predictions, at its size and not flipped.

        Returns:
            A data sample for each image; ``pred_sem_seg`` is (1, H, W).
        """
        if self.module.out_channels > 1:
            return super().merge_preds(data_samples_list)
        merged = []
        for samples in data_samples_list:
            mean = torch.stack([sample.seg_logits.data for sample in samples]).mean(0)
            labels = (mean > self.module.decode_head.threshold).long()
            sample = samples[0]
            sample.set_data(
                dict(seg_logits=PixelData(data=mean), pred_sem_seg=PixelData(data=labels))
            )
            merged.append(sample)
        return merged
