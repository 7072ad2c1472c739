# From scratch. No source states the recipe: 150 epochs, the jitter of 512 to 768, the rate of 0.08
# for 64 images with cosine decay and trained batch norm are from memory of the paper.
_base_ = [
    '../_base_/models/retinanet_r50_fpn_scratch.py',
    '../_base_/datasets/coco_detection_640x640.py',
    '../_base_/schedules/schedule_150e_cosine.py',
    '../_base_/default_runtime_det.py',
]
