"""Statistics of paired comparisons and of shifts, as functions of counts and arrays."""

from perennial.statistics.blocks import BlockMean, block_mean
from perennial.statistics.calibration import calibration_change, expected_calibration_error
from perennial.statistics.categories import (
    Categories,
    category_shift,
    chi_square,
    chi_square_p_value,
    cramers_v,
    population_stability,
)
from perennial.statistics.dependence import Counts, design_effect, effective_counts
from perennial.statistics.means import Difference, cluster_means, mean_difference, welch_below
from perennial.statistics.multiplicity import benjamini_hochberg, holm, holm_levels
from perennial.statistics.numbers import NumberReference, Numbers, ks_p_value, number_shift
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
from perennial.statistics.tail import tail_threshold
from perennial.statistics.unpaired import unpaired_difference

__all__ = [
    "BlockMean",
    "Categories",
    "Counts",
    "Difference",
    "NumberReference",
    "Numbers",
    "benjamini_hochberg",
    "block_mean",
    "calibration_change",
    "category_shift",
    "chi_square",
    "chi_square_p_value",
    "cluster_means",
    "cramers_v",
    "design_effect",
    "effective_counts",
    "expected_calibration_error",
    "holm",
    "holm_levels",
    "ks_p_value",
    "mcnemar",
    "mcnemar_power",
    "mean_difference",
    "mean_power",
    "number_shift",
    "population_stability",
    "quantile_ratio",
    "rows_needed",
    "share_bounds",
    "tail_threshold",
    "tango_interval",
    "tango_intervals",
    "tango_power",
    "tango_scores",
    "tango_test",
    "tango_z",
    "unpaired_difference",
    "welch_below",
]
