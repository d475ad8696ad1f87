"""What unquoted words mean."""

import pytest

from noisegate.service.yamlscalar import NotPlainError, key_text, plain_value


def _tag(name: str) -> str:
    return f"tag:yaml.org,2002:{name}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("on", True),
        ("y", True),
        ("TRUE", True),
        ("no", False),
        ("Off", False),
        ("n", False),
        ("", None),
        ("~", None),
        ("Null", None),
        ("tRUE", "tRUE"),
        ("app", "app"),
        ("0", 0),
        ("010", 8),
        ("0o17", 15),
        ("08", 8),
        ("0x1F", 31),
        ("-0x1f", -31),
        ("0b11", 3),
        ("+12", 12),
        ("1_000", 1000),
        ("_1", "_1"),
        ("-", "-"),
        ("1:30", "1:30"),
        ("2001-01-01", "2001-01-01"),
        ("2001-12-14t21:59:43Z", "2001-12-14t21:59:43Z"),
        ("9223372036854775807", 9223372036854775807),
        ("9223372036854775808", 9223372036854775808.0),
        ("18446744073709551616", 18446744073709551616.0),
        ("0xffffffffffffffffff", "0xffffffffffffffffff"),
        ("1.5", 1.5),
        ("1.0", 1),
        ("1e3", 1000),
        ("1e21", 1e21),
        ("1e400", "1e400"),
        ("1e-400", 0),
        (".5", 0.5),
        (".1_5", 0.15),
        ("._5", "._5"),
        ("1" * 401, "1" * 401),
        ("1\u0661", "1\u0661"),
    ],
)
def test_an_unquoted_word_means_what_it_means_to_kubectl(text: str, value: object) -> None:
    """Values and their types are those of sigs.k8s.io/yaml and Kubernetes' integers."""
    assert plain_value(text, None) == value
    assert type(plain_value(text, None)) is type(value)


@pytest.mark.parametrize(
    ("tag", "text", "value"),
    [
        (_tag("str"), "1", "1"),
        (_tag("int"), "3", 3),
        (_tag("bool"), "yes", True),
        (_tag("float"), "1", 1),
        (_tag("float"), "1.5", 1.5),
        (_tag("null"), "~", None),
        (_tag("timestamp"), "2001-01-01", "2001-01-01"),
        (_tag("binary"), "YW\n Jj", "abc"),
        ("!", "12", "12"),
        ("!foo", "3", "3"),
    ],
)
def test_a_tag_says_what_the_word_is(tag: str, text: str, value: object) -> None:
    """Core tags are obeyed, all others mean text."""
    assert plain_value(text, tag) == value


@pytest.mark.parametrize(
    ("tag", "text", "told"),
    [
        (None, ".nan", ".nan is no number in JSON; put it in quotation marks if text is meant"),
        (None, "-.inf", "-.inf is no number in JSON; put it in quotation marks if text is meant"),
        (_tag("int"), "x", '"x" is not what its tag !!int says'),
        (_tag("binary"), "?", "the text under !!binary is not base64"),
    ],
)
def test_what_json_does_not_have_is_refused(tag: str | None, text: str, told: str) -> None:
    """NaN, infinity, a word against its tag and bad base64 are refused, each with its own sentence."""
    with pytest.raises(NotPlainError) as error:
        plain_value(text, tag)
    assert str(error.value) == told


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("app", "app"),
        ("yes", "true"),
        ("off", "false"),
        ("010", "8"),
        ("1.10", "1.1"),
        ("1.0", "1"),
        ("0.0", "0"),
        ("100000.0", "100000"),
        ("1e6", "1e+06"),
        ("1234567.5", "1.2345675e+06"),
        ("0.0001", "0.0001"),
        ("1.5e-5", "1.5e-05"),
        ("-2.50", "-2.5"),
        ("1e39", ".inf"),
        ("-1e39", "-.inf"),
        (".inf", ".inf"),
        ("-.inf", "-.inf"),
        (".nan", ".nan"),
    ],
)
def test_a_key_becomes_the_text_that_kubectl_makes_of_it(text: str, key: str) -> None:
    """Booleans, integers and floats (as float32) become text."""
    assert key_text(text, None) == key


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("~", "a key cannot be null; put it in quotation marks"),
        ("9223372036854775808", "9223372036854775808 is too large a number for a key; put it in quotation marks"),
    ],
)
def test_keys_that_kubectl_refuses_are_refused(text: str, told: str) -> None:
    """Null and integers beyond int64 cannot be keys."""
    with pytest.raises(NotPlainError) as error:
        key_text(text, None)
    assert str(error.value) == told
