"""What the networks are trained on. Legend: N images or people, C classes, K keypoints, h and w of heatmaps."""

from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean over N of -sum_c softmax(teacher)_c log softmax(logits)_c; both (N, C), temperature 1.

    Source: distillation as in the released code of 2205.07433 (and ReActNet, 2003.03488).
    """
    return F.cross_entropy(logits, teacher_logits.softmax(dim=1))


def heatmap_loss(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Half the mean squared error of (N, K, h, w) heatmaps, joints weighted by (N, K); unlabelled ones weigh 0.

    Source: Simple Baselines (1804.06208), JointsMSELoss.
    """
    return 0.5 * ((heatmaps - targets).square().mean(dim=(2, 3)) * weights).mean()


def heatmap_cross_entropy(heatmaps: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of each joint's place: heatmaps (N, K, h, w) are logits over h w cells, targets are normalised
    to sum 1, joints weighted by (N, K); the mean over labelled joints.

    Source: Mask R-CNN (1703.06870), section 5, which takes one cell as target; the Gaussian one is ours.
    """
    wanted = targets.flatten(2)
    wanted = wanted / wanted.sum(2, keepdim=True).clamp(min=1e-6)
    each = -(wanted * heatmaps.flatten(2).log_softmax(2)).sum(2)
    return (each * weights).sum() / weights.sum().clamp(min=1)
