"""What is wrong in a file, and where."""

import pytest

from noisegate.service.faults import ConfigError, Fault, Lines, Wrongs, path_text

LINES = Lines(
    (
        1,
        {
            "metadata": (2, {"annotations": (3, {"noisegate.io/mode": 4, "a": 5, "a.b": (6, {"c": 7})})}),
            "list": (8, [9, (10, {"x": 11})]),
        },
    )
)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("", 1),
        ("metadata", 2),
        ("metadata.annotations[noisegate.io/mode]", 4),
        ("metadata.annotations.noisegate.io/mode", 4),
        ("metadata.annotations[noisegate.io/mode].volume1.limits.rbps", 4),
        ("metadata.annotations.a.b.c", 7),
        ("metadata.annotations.a", 5),
        ("metadata.annotations.ab", 3),
        ("metadata.annotations[absent]", 3),
        ("metadata.annotations[absent", 3),
        ("list[1].x", 11),
        ("list[0]", 9),
        ("list.0", 9),
        ("list[2]", 8),
        ("list[x]", 8),
        ("list[", 8),
        ("absent", 1),
        ((), 1),
        (("metadata", "annotations", "a.b", "c"), 7),
        (("list", 1, "x"), 11),
        (("list", 1, "y", 3), 10),
        (("list", -1), 8),
        (("list", "x"), 8),
    ],
)
def test_a_path_leads_to_the_nearest_known_line(path: str | tuple[str | int, ...], line: int) -> None:
    """Text or steps lead to the value's line, else to that of the closest ancestor."""
    assert LINES.line_of(path) == line


def test_lines_can_be_seen_from_below() -> None:
    """The lines under a path take paths that begin there."""
    assert LINES.under("list[1]").line_of("x") == 11


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("f.yaml", 3, 7, "a.b", "bad", "write 1"), "f.yaml:3:7: a.b: bad (write 1)"),
        (Fault("f.yaml", 3, 0, "a.b", "bad"), "f.yaml:3: a.b: bad"),
        (Fault("f.yaml", 0, 0, "", "cannot be read"), "f.yaml: cannot be read"),
    ],
)
def test_a_fault_is_one_line(fault: Fault, text: str) -> None:
    """Numbers and path are left out where they are not known."""
    assert str(fault) == text


def test_paths_are_written_as_problems_write_them() -> None:
    """Keys with dots, slashes or blanks stand in brackets, as do indexes."""
    assert path_text(("rules", 0, "when", "a/b", "c d", "")) == "rules[0].when[a/b][c d][]"


def test_wrong_values_are_collected_and_raised_in_the_order_of_lines() -> None:
    """Text is shown in quotation marks, other values as JSON, nothing where there is none."""
    wrongs = Wrongs("f.yaml", LINES)
    wrongs.raise_if_any()
    wrongs.add("list[0]", 3, "a text is needed", 'write "3"')
    wrongs.add(("metadata", "annotations"), "x", "a mapping is needed")
    wrongs.add("", None, "incomplete")
    with pytest.raises(ConfigError) as error:
        wrongs.raise_if_any()
    assert error.value.faults == (
        Fault("f.yaml", 1, 0, "", "incomplete"),
        Fault("f.yaml", 3, 0, "metadata.annotations", '"x": a mapping is needed'),
        Fault("f.yaml", 9, 0, "list[0]", "3: a text is needed", 'write "3"'),
    )
    assert str(error.value).splitlines()[2] == 'f.yaml:9: list[0]: 3: a text is needed (write "3")'
