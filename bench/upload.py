"""Seconds and client CPU for a GiB to the store, beside pyarrow.fs, Ray, boto3, s5cmd and rclone.

python -m bench.upload [repeats]
"""

import sys

from bench.transfers import best, compare, median


def main(repeats: int = 3) -> None:
    """Print the table and how far the goals are."""
    for case, rows in compare("upload", repeats).items():
        peer = best(rows)
        ours = median(rows["ours"], "seconds")
        print(
            f"{case}: {ours / median(rows[peer], 'seconds'):.2f}× the best, {peer} (goal ≤ 1.05); "
            f"{median(rows['pyarrow'], 'seconds') / ours:.1f}× faster than pyarrow (goal ≥ 3 for many files)"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
