"""YAML as it is written: nothing is dropped, nothing is read as what its writer did not mean.

Keys are there once; 010 and 1:30 and no are strings, as in YAML 1.2; without anchors a file cannot refer to itself or
unfold to more than is in it.
"""

import re
from typing import Any

import yaml

_BOOL, _INT, _FLOAT, _NULL = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null"))
_EXPONENT = r"(?:[eE][-+]?[0-9]+)"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, f"the alias *{event.anchor} is not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                message = f"the key {key!r} is not a string"
                raise yaml.constructor.ConstructorError(None, None, message, key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    (_BOOL, "true|True|TRUE|false|False|FALSE", "tTfF"),
    (_INT, "[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        _FLOAT,
        rf"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?){_EXPONENT}?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    (_NULL, "~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))


def load(text: str) -> Any:
    """Parse a document; as `yaml.safe_load`, no objects of Python are made.

    Raises:
        yaml.YAMLError: It is not YAML, or not of the kind above.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except RecursionError as error:
        raise yaml.YAMLError("nested too deep") from error
    except ValueError as error:  # of numbers with thousands of digits
        raise yaml.YAMLError(str(error)) from error
