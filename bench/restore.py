"""Seconds and client CPU for a GiB from the store, verified, beside pyarrow.fs, Ray, boto3, s5cmd and rclone.

python -m bench.restore [repeats]
"""

import sys

from bench.transfers import best, compare, median


def main(repeats: int = 3) -> None:
    """Print the table and how far the goals are."""
    for case, rows in compare("download", repeats).items():
        peer = best(rows)
        ours = median(rows["ours"], "seconds")
        print(
            f"{case}: {median(rows['ray'], 'seconds') / ours:.1f}× faster than Ray's as_directory (goal ≥ 3); "
            f"{ours / median(rows[peer], 'seconds'):.2f}× the best, {peer}; "
            f"peak RSS {median(rows['ours'], 'rss_share'):.2f} of the state (goal ≤ 1.2)"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
