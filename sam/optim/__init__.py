"""SAM and its variants around any torch optimizer, batch-norm statistics, and the learning-rate schedule."""

from sam.optim.f_sam import FSAM
from sam.optim.le_sam import LESAM
from sam.optim.msam import MSAM
from sam.optim.running_statistics import RunningStatistics
from sam.optim.s2_sam import S2SAM
from sam.optim.sam import SAM
from sam.optim.stable_sam import StableSAM
from sam.optim.vasso import VaSSO

__all__ = ["FSAM", "LESAM", "MSAM", "S2SAM", "SAM", "RunningStatistics", "StableSAM", "VaSSO"]
