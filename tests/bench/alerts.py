"""20,000 reports on 2,000 subjects: our engine beside get_or_create, on MariaDB, in one run.

make bench BENCH=alerts
"""

import statistics
from collections import defaultdict

from bench import Bench, say

VARIANTS = ("ours_batched", "ours", "get_or_create")
ROUNDS = 1
UNITS = {"reports": "reports/s", "statements": "statements/report", "cpu": "ms/report"}

Results = dict[str, dict[str, list[float]]]
"""The values of all rounds by variant and by what was measured."""


def measure(bench: Bench) -> Results:
    results: Results = {variant: defaultdict(list) for variant in VARIANTS}
    for number in range(1, ROUNDS + 1):
        for variant in VARIANTS:
            printed = bench.inside("worker-shared", "python3", "/bench/alerts_inside.py", variant)
            *values, alerts = (float(value) for value in printed.split()[-4:])
            for what, value in zip(UNITS, values, strict=True):
                results[variant][what].append(value)
            say(f"round {number} of {ROUNDS}: {variant} {values[0]:.0f}/s, {alerts:.0f} alerts")
            results[variant]["alerts"].append(alerts)
    return results


def report(results: Results) -> None:
    """Print the figures, medians of the rounds, the ratios first."""
    medians = {
        variant: {what: statistics.median(values) for what, values in measured.items()}
        for variant, measured in results.items()
    }
    naive = medians["get_or_create"]
    for variant in VARIANTS[:-1]:
        for what in UNITS:
            ratio = medians[variant][what] / naive[what]
            print(f"figure alerts_{what}_ratio_{variant} {ratio:.3g} x")
    for variant, measured in medians.items():
        for what, unit in UNITS.items():
            print(f"figure alerts_{what}_{variant} {measured[what]:.4g} {unit}")
        print(f"figure alerts_opened_{variant} {measured['alerts']:.0f} alerts")


def main() -> None:
    bench = Bench("alerts")
    with bench.site():
        results = measure(bench)
    report(results)


if __name__ == "__main__":
    main()
