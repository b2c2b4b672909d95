"""Statistics of paired comparisons, as functions of counts and arrays."""

from perennial.statistics.blocks import BlockMean, block_mean
from perennial.statistics.calibration import calibration_change, expected_calibration_error
from perennial.statistics.dependence import Counts, design_effect, effective_counts
from perennial.statistics.means import Difference, cluster_means, mean_difference, welch_below
from perennial.statistics.multiplicity import holm, holm_levels
from perennial.statistics.power import mcnemar_power, mean_power, rows_needed, tango_power
from perennial.statistics.proportions import (
    mcnemar,
    share_bounds,
    tango_interval,
    tango_intervals,
    tango_scores,
    tango_test,
    tango_z,
)
from perennial.statistics.ratios import quantile_ratio
from perennial.statistics.unpaired import unpaired_difference

__all__ = [
    "BlockMean",
    "Counts",
    "Difference",
    "block_mean",
    "calibration_change",
    "cluster_means",
    "design_effect",
    "effective_counts",
    "expected_calibration_error",
    "holm",
    "holm_levels",
    "mcnemar",
    "mcnemar_power",
    "mean_difference",
    "mean_power",
    "quantile_ratio",
    "rows_needed",
    "share_bounds",
    "tango_interval",
    "tango_intervals",
    "tango_power",
    "tango_scores",
    "tango_test",
    "tango_z",
    "unpaired_difference",
    "welch_below",
]
