"""Adds up the JUnit files of several pytest runs into one last line.

Usage: summary.py FILE... ; a file that is missing or unreadable counts as one
failure, because then a whole run ended before it could report.
"""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path


def count(path: Path) -> Counter[str]:
    """Outcomes of one run; errors in set-up or tear-down count as failures."""
    try:
        cases = ElementTree.parse(path).getroot().iter("testcase")
    except (OSError, ElementTree.ParseError) as error:
        print(f"no results in {path}: {error}", file=sys.stderr)
        return Counter(failed=1)
    outcomes: Counter[str] = Counter()
    for case in cases:
        tags = {child.tag for child in case}
        if tags & {"failure", "error"}:
            outcomes["failed"] += 1
        elif "skipped" in tags:
            outcomes["skipped"] += 1
        else:
            outcomes["passed"] += 1
    return outcomes


def main(paths: list[Path]) -> int:
    """Print the summary line; 1 when anything failed or nothing ran."""
    total: Counter[str] = Counter()
    for path in paths:
        total += count(path)
    line = f"{total['passed']} passed, {total['failed']} failed"
    if total["skipped"]:
        line += f", {total['skipped']} skipped"
    print(line)
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
