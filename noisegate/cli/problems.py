"""`noisegate problems`: what each code means, with an example and its mend; `docs/problems.md` is the same in Markdown."""

import argparse
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from noisegate.isolation.problems import Code

KINDS: Final = {
    "0": "Every kind",
    "1": "Disk bandwidth",
    "2": "Network bandwidth",
    "3": "RDT classes: cache and memory bandwidth",
    "4": "SR-IOV interfaces",
    "5": "Exclusive cores",
    "6": "Rules of mutations.yaml",
    "7": "Changes to a running pod",
    "8": "Reserved keys",
}
"""What the first digit of a code stands for."""

TEXT = """\
Say what a problem code means, why it matters, and what to write instead. Without a code: list them all.

example:
  noisegate problems NG101
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `problems`."""
    parser = subparsers.add_parser(
        "problems",
        help="say what a problem code means and how to mend it",
        description=TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("codes", nargs="*", metavar="CODE", help="such as NG101, or a code's name")
    parser.add_argument("--markdown", action="store_true", help="print docs/problems.md instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the codes; return the exit code: 0, or 2 where there is no such code."""
    from noisegate.isolation.problems import nearest  # noqa: PLC0415  (the help must not wait for pydantic)

    known = codes()
    if args.markdown:
        print(markdown(), end="")
        return 0
    if not args.codes:
        width = max(len(code.name) for code in known)
        for code in known:
            print(f"{code.id}  {code.name:<{width}}  {code.about.partition('. ')[0].removesuffix('.')}")
        return 0
    by_name = {name: code for code in known for name in (code.id.lower(), code.name)}
    chosen = []
    for word in args.codes:
        found = by_name.get(word.lower())
        if found is None:
            meant = nearest(word, by_name)
            hint = f"; did you mean {by_name[meant].id} ({by_name[meant].name})?" if meant else ""
            print(
                f'noisegate problems: there is no code "{word}"{hint}; all codes: noisegate problems', file=sys.stderr
            )
            return 2
        chosen.append(found)
    print("\n\n".join(_text(code) for code in chosen))
    return 0


def codes() -> tuple["Code", ...]:
    """Return every code there is, in order."""
    from noisegate.isolation.codes import CODES  # noqa: PLC0415
    from noisegate.webhook import admit, merge, mutate, update  # noqa: PLC0415

    return tuple(sorted([*CODES, *(code for module in (admit, merge, mutate, update) for code in module.CODES)]))


def markdown() -> str:
    """Return `docs/problems.md`."""
    known = codes()
    lines = [
        "# Problems",
        "",
        "Every refusal and every warning carries one of these codes. A code keeps its meaning; what is no longer said",
        "leaves a gap. `noisegate problems NG101` prints the same on a terminal.",
        "",
        "This page is made from the code: `make docs`.",
        "",
        "| code | name | what it says |",
        "|---|---|---|",
    ]
    for code in known:
        first = code.about.partition(". ")[0].removesuffix(".").replace("|", "\\|")
        lines.append(f"| [{code.id}](#{code.id.lower()}-{code.name}) | {code.name} | {first} |")
    kind = ""
    for code in known:
        if code.id[2] != kind:
            kind = code.id[2]
            lines += ["", f"## {KINDS[kind]}"]
        lines += ["", f"### {code.id} {code.name}", "", code.about, "", "```yaml", code.example, "```", ""]
        if _is_yaml(code.mend):
            lines += ["Write instead:", "", "```yaml", code.mend, "```"]
        else:
            lines += [f"Mend: {code.mend[1:-1]}."]
    return "\n".join(lines) + "\n"


def _text(code: "Code") -> str:
    mend = ["write instead:", "", _indented(code.mend)] if _is_yaml(code.mend) else [f"mend: {code.mend[1:-1]}"]
    return "\n".join(
        [f"{code.id} {code.name}", "", code.about, "", "wrong or doubtful:", "", _indented(code.example), "", *mend]
    )


def _is_yaml(mend: str) -> bool:
    """Tell whether a mend is YAML; else it is a sentence in brackets."""
    return not (mend.startswith("(") and mend.endswith(")"))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
