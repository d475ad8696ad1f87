"""`python -m bench`: measure the admission server against a no-op and say whether the targets are met."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from bench import report, rounds, servers, stages
from bench.load import WrongAnswerError
from bench.servers import REPOSITORY, ServerFailedError

RESULTS: Final = REPOSITORY / "bench" / "results"


def main() -> int:
    """Run; return 0, or 1 when something failed: a wrong answer, a server, or with --strict a target."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round, about 30 s, instead of five, about 4 minutes"
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help="number of rounds")
    parser.add_argument("--stages", action="store_true", help="only what each stage costs, in one process, about 15 s")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables into this document, between its two marks"
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a target is missed")
    given = parser.parse_args()
    cores = servers.take_cores()
    if cores.shared:
        _say("this machine has one core for server and load: the ratios mean little")
    if given.stages:
        for cost in stages.costs():
            print(f"{cost.stage:60}", *(f"{micros:8.1f}" for micros in cost.micros.values()))
        return 0
    plan = rounds.QUICK if given.quick else rounds.FULL
    if given.rounds:
        plan = plan._replace(rounds=given.rounds)
    try:
        with tempfile.TemporaryDirectory(prefix="noisegate-bench-") as folder:
            results = rounds.measure(plan, Path(folder), cores, _say)
    except (WrongAnswerError, ServerFailedError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    told = report.text(results)
    print(told)
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / f"{results.date}-{'quick' if given.quick else 'full'}.json"
    kept.write_bytes(msgspec.json.format(msgspec.json.encode(report.as_json(results))))
    _say(f"all figures: {kept.relative_to(REPOSITORY)}")
    if given.write:
        report.write(given.write, told)
    missed = [each for each in report.verdicts(results) if each.met is False]
    return 1 if missed and given.strict else 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few; at least 1")
    return number


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
