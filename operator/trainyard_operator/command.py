"""The command `trainyard-operator`: says what is missing where the operator's part is not installed."""

import sys

from trainyard import extras
from trainyard.errors import MissingExtraError


def main() -> None:
    """Run the operator until it is told to end. Exits with 2 without trainyard[operator]."""
    try:
        extras.need("operator", "the operator")
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(int(error.exit_code))
    from trainyard_operator.main import main as run

    run()
