"""Seconds and client CPU for a GiB from the store, verified, beside pyarrow.fs, Ray, boto3, s5cmd and rclone.

python -m bench.restore [repeats]
"""

import sys

from bench.transfers import compare, median

CLIENTS = ("ours", "pyarrow", "ray", "boto3", "s5cmd", "rclone")


def main(repeats: int = 3) -> None:
    """Print the table and how far the goals are."""
    for case, rows in compare("download", CLIENTS, repeats).items():
        best = min((client for client in CLIENTS if client != "ours"), key=lambda each: median(rows[each], "seconds"))
        ours = median(rows["ours"], "seconds")
        print(
            f"{case}: {median(rows['ray'], 'seconds') / ours:.1f}× faster than Ray's as_directory (goal ≥ 3); "
            f"{ours / median(rows[best], 'seconds'):.2f}× the best, {best}; "
            f"peak RSS {median(rows['ours'], 'rss_share'):.2f} of the state (goal ≤ 1.2)"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
