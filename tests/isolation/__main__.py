"""`python -m tests.isolation [PAIRS]`: whether the clock tells what is another tenant's from what is not there."""

import sys
import tempfile
from pathlib import Path

from tests.isolation.tenants import tenants
from tests.isolation.timing import alike, compared


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with tempfile.TemporaryDirectory() as folder, tenants(Path(folder)) as both:
        rows = compared(both, pairs)
    print("| route | foreign ms | absent ms | difference ms | spread ms | foreign slower | |")
    print("|---|---|---|---|---|---|---|")
    for name, one in rows.items():
        figures = f"{one.foreign:.2f} | {one.absent:.2f} | {one.difference:+.3f} | {one.spread:.2f} | {one.slower:.0%}"
        print(f"| {name} | {figures} | {'' if alike(one) else 'DIFFERS'} |")


if __name__ == "__main__":
    main()
