"""What it costs to look at a window, and whether every statistic is the one that SciPy gives.

python benchmarks/monitor_cost.py --json monitor_cost.json

A window of ten million rows and twenty columns lies in a parquet file, 16 columns of numbers (some
with gaps) and four of categories. It is held against a reference of 10,000 rows by a process of its
own, so that its peak of memory is that of the whole monitor, libraries included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from harness import bar, finish
from scipy import stats
from scipy.stats import contingency

from perennial.data.columns import TEXT
from perennial.data.preprocess import Table
from perennial.data.rows import Rows
from perennial.monitoring.calibration import Calibration
from perennial.monitoring.drift import Examiner
from perennial.monitoring.mmd import mmd_test
from perennial.monitoring.reference import Reference, sample
from perennial.monitoring.window import Window
from perennial.statistics import benjamini_hochberg, number_shift
from perennial.statistics.categories import Categories, chi_square, cramers_v
from perennial.statistics.numbers import NumberReference, Numbers

NUMBERS, CATEGORIES = 16, 4
NAMES = np.array([f"name-{i:03}" for i in range(200)])
GROUP = 1 << 20


def columns(count: int, *, seed: int) -> dict[str, Any]:
    """Columns as a warehouse has them: heavy tails, counts, gaps, names."""
    generator = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for place in range(NUMBERS):
        values = generator.standard_normal(count, dtype=np.float32)
        if place % 4 == 1:
            values = np.exp(values)
        if place % 4 == 2:
            values = np.floor(4 * np.abs(values))
        if place % 4 == 3:
            values[generator.random(count, dtype=np.float32) < 0.1] = np.nan
        found[f"x{place}"] = values
    for place in range(CATEGORIES):
        found[f"c{place}"] = generator.geometric(0.05, count).clip(max=len(NAMES)) - 1
    return found


def write(path: Path, count: int) -> None:
    """The window's file, a row group at a time."""
    writer = None
    for start in range(0, count, GROUP):
        made = columns(min(GROUP, count - start), seed=1 + start)
        arrays = {
            name: pa.array(values, from_pandas=True)
            if values.dtype.kind == "f"
            else pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int16)), pa.array(NAMES))
            for name, values in made.items()
        }
        table = pa.table(arrays)
        writer = writer or pq.ParquetWriter(path, table.schema, compression="snappy")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def reference(count: int) -> Reference:
    """A sample of the same columns."""
    features = {
        name: values if values.dtype.kind == "f" else NAMES[values].astype(TEXT)
        for name, values in columns(count, seed=0).items()
    }
    ids = np.arange(count).astype(np.str_)
    rows = Rows(
        features=features, label=np.zeros(count, np.int64), id=ids, content=ids, cluster=ids
    )
    schema = {name: "str ()" if v.dtype == TEXT else "float32 ()" for name, v in features.items()}
    found = sample(
        {"train": rows, "holdout": rows.take(slice(0, 0))},
        capacity=count,
        seed=0,
        schema=schema,
        preprocess=Table(),
    )
    assert found is not None
    return found


def child(path: Path) -> dict[str, Any]:
    """Seconds and memory of one look at the file."""
    whole = reference(10_000)
    began, cpu = time.perf_counter(), time.process_time()
    examiner = Examiner(whole, calibration=Calibration())
    findings = examiner.examine(Window.open(path, whole))
    return {
        "rows": findings.rows,
        "alarm": findings.alarm,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def mmd_seconds(rows: int, dimensions: int, permutations: int) -> float:
    """CPU-seconds of one MMD test, the best of three."""
    torch.manual_seed(0)
    first, second = torch.randn(2, rows, dimensions)
    taken = []
    for _ in range(3):
        began = time.process_time()
        mmd_test(first, second, count=permutations)
        taken.append(time.process_time() - began)
    return min(taken)


def largest_difference(*, draws: int) -> float:
    """The largest relative difference of any statistic or p-value from SciPy's."""
    generator = np.random.default_rng(0)
    apart = [0.0]

    def compare(own: float, scipy: float) -> None:
        apart.append(abs(own - scipy) / max(abs(scipy), 1e-12) if own != scipy else 0.0)

    for _ in range(draws):
        old = generator.standard_t(3, int(generator.integers(20, 3000)))
        new = generator.normal(generator.normal(0, 0.3), 1, int(generator.integers(20, 3000)))
        if generator.random() < 0.5:
            old, new = np.round(old, 1), np.round(new, 1)
        met = Numbers(NumberReference(old))
        for part in np.array_split(new, 3):
            met.add(part)
        expected = stats.ks_2samp(old, new, method="asymp")
        compare(met.ks, expected.statistic)
        compare(met.p_value(), expected.pvalue)
        compare(number_shift(old, new)["ks"], expected.statistic)
        compare(met.wasserstein, stats.wasserstein_distance(old, new))
        counts = [generator.integers(10, 100, 5) for _ in range(2)]
        chi = stats.chi2_contingency(np.stack(counts), correction=False)
        both = Categories.of(*(dict(zip("abcde", part.tolist(), strict=True)) for part in counts))
        compare(chi_square(both.reference, both.values)[0], chi.statistic)
        compare(both.p_value(), chi.pvalue)
        even = generator.multinomial(400, np.ones(4) / 4, 2)
        compare(cramers_v(*even), contingency.association(even, method="cramer"))
        p_values = generator.random(12) ** 3
        for own, scipy in zip(
            benjamini_hochberg(p_values), stats.false_discovery_control(p_values), strict=True
        ):
            compare(own, scipy)
    return max(apart)


def main() -> None:
    """Print what it took, and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--reduced", action="store_true", help="fewer rows; bars of size not held")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.child is not None:
        print(json.dumps(child(chosen.child)))
        return
    count = 200_000 if chosen.reduced else chosen.rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "window.parquet"
        write(path, count)
        size = path.stat().st_size
        told = subprocess.run(
            [sys.executable, __file__, "--child", str(path)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    row = {**json.loads(told), "file_bytes": size}
    assert row["rows"] == count
    dimensions = (300, 64, 200) if chosen.reduced else (2000, 768, 500)
    row["mmd_cpu_seconds"] = mmd_seconds(*dimensions)
    row["largest_difference"] = largest_difference(draws=20 if chosen.reduced else 300)
    print(
        f"{count:,} rows x {NUMBERS + CATEGORIES} columns, {size / 2**20:,.0f} MiB: "
        f"{row['seconds']:.1f} s, {row['cpu_seconds']:.1f} CPU-s, "
        f"{row['peak_bytes'] / 2**20:,.0f} MiB at most; alarm: {row['alarm']}"
    )
    scale = count / 10_000_000
    bars = [
        bar("seconds for 10 M rows x 20 columns", row["seconds"] / scale, 60, higher=False),
        bar("peak of memory, GiB", row["peak_bytes"] / 2**30, 2, higher=False),
        bar(
            "MMD {0} x {0} x {1}, {2} permutations, CPU-s".format(*dimensions),
            row["mmd_cpu_seconds"],
            1.5,
            higher=False,
        ),
        bar(
            "largest relative difference from SciPy", row["largest_difference"], 1e-8, higher=False
        ),
    ]
    if chosen.reduced:
        bars = bars[1:]
    finish([row], bars, chosen.json)


if __name__ == "__main__":
    main()
