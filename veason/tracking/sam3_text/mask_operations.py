"""What transformers' SAM 3 takes from a compiled package that it downloads: suppression of doubles, small components.

Without that package transformers leaves both steps out with a warning, so that results would depend on a download.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


class MaskOperations:
    """The two functions of the hub's `kernels-community/cv-utils` that `modeling_sam3_video` calls.

    Source: huggingface/transformers `src/transformers/models/sam3_video/modeling_sam3_video.py`, `nms_masks` and
    `_get_connected_components_with_padding`.
    """

    @staticmethod
    def generic_nms(ious: Tensor, scores: Tensor, iou_threshold: float, use_iou_matrix: bool = True) -> Tensor:
        """Greedy suppression: the numbers of the detections that are kept, best first.

        Args:
            ious: [N, N], of each pair.
            scores: [N].
            iou_threshold: a detection that overlaps a better one by more is dropped.
        """
        assert use_iou_matrix
        overlapping, left = (ious > iou_threshold).cpu(), torch.ones(len(scores), dtype=torch.bool)
        kept = []
        for number in scores.argsort(descending=True).tolist():
            if left[number]:
                kept.append(number)
                left &= ~overlapping[number]
        return torch.tensor(kept, dtype=torch.int64, device=scores.device)

    @staticmethod
    def cc_2d(masks: Tensor, get_counts: bool = True) -> tuple[Tensor, Tensor]:
        """Connected components of uint8 masks [N, 1, H, W], neighbours in eight directions.

        Returns:
            int32 [N, 1, H, W] each: a pixel's component, 0 outside; and that component's pixels, 0 outside.
        """
        assert get_counts
        labels = np.zeros(masks.shape, np.int32)
        counts = np.zeros(masks.shape, np.int32)
        for number, mask in enumerate(masks[:, 0].cpu().numpy()):
            _, found, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
            areas = statistics[:, cv2.CC_STAT_AREA].astype(np.int32)
            areas[0] = 0
            labels[number, 0], counts[number, 0] = found, areas[found]
        return torch.from_numpy(labels).to(masks.device), torch.from_numpy(counts).to(masks.device)
