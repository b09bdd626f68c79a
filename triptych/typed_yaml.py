"""YAML read by the types of a schema: a field whose type is text holds the text that was typed.

YAML 1.1 guesses what an unquoted value is: `no` is false, `012` ten, `3.10` a number, `2026_11_30` twenty million, and
`2026-11-30` a date. Whoever names a folder, a language or a take has written a text. Where the schema has another type,
or none is known, YAML's guess stands.
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union

import yaml

TEXTS = (str, Path)
SCHEMA = "schema"
"""Key of a field's metadata: the dataclass that its mapping is a part of, where its own type says `dict[str, Any]`."""
_PLAIN = ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")
_MARKS = ("tag:yaml.org,2002:value", "tag:yaml.org,2002:merge")
"""`=` and `<<`, which mean something as keys only."""


class Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    _refuse_twice([loader.construct_object(key) for key, _ in node.value], node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _refuse_twice(keys: Sequence[Any], node: yaml.MappingNode) -> None:
    seen: set[Any] = set()
    for key, (key_node, _) in zip(keys, node.value, strict=True):
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read(text: str, schema: Any) -> Any:
    """The content of a YAML document as plain types.

    Args:
        text: the document.
        schema: the type that the content is meant for: a dataclass, `list[str]`, ...; `Any` where none is known.

    Raises:
        yaml.YAMLError: it is no YAML, or a key is given twice.
    """
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _Reader(loader).value(node, schema)
    finally:
        loader.dispose()


def read_typed(text: str, schema: Any) -> Any:
    """A value of the command line: as `read`, and a text is the whole of what was typed, also `a: b` or `[draft]`.

    `null` is nothing where the type may be nothing; a text in quotes is what they hold.

    Raises:
        yaml.YAMLError: the type is not text, and this is no YAML.
    """
    inner, optional = _options(schema)
    if not (inner and set(inner) <= set(TEXTS)):
        return read(text, schema)
    if optional and text.strip() in ("null", "~"):
        return None
    if text[:1] in ("'", '"'):
        try:
            quoted = yaml.compose(text, Loader=Loader)
        except yaml.YAMLError:
            return text
        if isinstance(quoted, yaml.ScalarNode):
            return quoted.value
    return text


def type_at(schema: Any, path: Sequence[str]) -> Any:
    """The type of the field `a.b.c` below a schema; `Any` where there is none."""
    for name in path:
        schema = _below(schema, name)
    return schema


def _below(schema: Any, name: str) -> Any:
    """The type of what has a name in a schema, through `X | None`, dataclasses and mappings."""
    options, _ = _options(schema)
    found = []
    for option in options:
        if dataclasses.is_dataclass(option):
            meant = {each.name: each.metadata.get(SCHEMA) for each in dataclasses.fields(option)}.get(name)
            if meant is not None:
                return meant
            found.append(
                _hints(typing.cast(type, option)).get(name, str | None)
            )  # `base:`; all others without a field are refused later
        elif _is(option, Mapping):
            found.append((*typing.get_args(option), Any, Any)[1])
        elif _is(option, Sequence):
            found.append(_items(option, 1)[0])
    return found[0] if len(found) == 1 else Any


@cache
def _hints(schema: type) -> dict[str, Any]:
    return typing.get_type_hints(schema)


def _options(schema: Any) -> tuple[list[Any], bool]:
    """The types of a union but None, and whether None is one; a choice of words is text."""
    types = list(typing.get_args(schema)) if typing.get_origin(schema) in (Union, UnionType) else [schema]
    options = [
        str
        if typing.get_origin(kind) is Literal and all(isinstance(word, str) for word in typing.get_args(kind))
        else kind
        for kind in types
        if kind not in (NoneType, None)
    ]
    return options, len(options) < len(types)


def _is(kind: Any, family: type) -> bool:
    origin = typing.get_origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, family) and origin not in TEXTS


def _items(kind: Any, count: int) -> list[Any]:
    """The types of a sequence's items: of `list[str]` one for all, of `tuple[str, int]` each its own."""
    arguments = [argument for argument in typing.get_args(kind) if argument is not Ellipsis]
    if len(arguments) > 1 and len(arguments) == count:
        return arguments
    return (arguments[:1] if len(arguments) == 1 else [Any]) * count


@dataclasses.dataclass(frozen=True)
class _Reader:
    loader: Loader

    def value(self, node: yaml.Node, schema: Any) -> Any:
        """What a node holds, read as one of the types that the schema allows."""
        options, optional = _options(schema)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, options, optional)
        if node.tag not in _PLAIN:  # a set, or a tag that only unsafe loaders know, which is refused here
            return self.loader.construct_object(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            kind = next((option for option in options if _is(option, Sequence)), Any)
            return [self.value(item, inner) for item, inner in zip(node.value, _items(kind, len(node.value)))]
        assert isinstance(node, yaml.MappingNode), "YAML has no other nodes"
        return self._mapping(node, options)

    def _scalar(self, node: yaml.ScalarNode, options: Sequence[Any], optional: bool) -> Any:
        plain = node.value if node.tag in _MARKS else self.loader.construct_object(node)
        if not any(option in TEXTS for option in options):
            return plain
        if plain is None and (optional or not node.value):  # `key:` with nothing behind it
            return None
        others = [option for option in options if option not in TEXTS]
        if any(isinstance(option, type) and type(plain) is option for option in others):  # int | str: 3 is a number
            return plain
        return node.value

    def _mapping(self, node: yaml.MappingNode, options: Sequence[Any]) -> dict[Any, Any]:
        kind = next((option for option in options if dataclasses.is_dataclass(option) or _is(option, Mapping)), None)
        if kind is None:
            return self.loader.construct_object(node, deep=True)
        key_type = str if dataclasses.is_dataclass(kind) else (*typing.get_args(kind), Any)[0]
        keys = [self._key(key, key_type) for key, _ in node.value]
        _refuse_twice(keys, node)
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            self.loader.flatten_mapping(node)
            keys = [self._key(key, key_type) for key, _ in node.value]
        return {key: self.value(inner, _below(kind, str(key))) for key, (_, inner) in zip(keys, node.value)}

    def _key(self, node: yaml.Node, key_type: Any) -> Any:
        if key_type in TEXTS and isinstance(node, yaml.ScalarNode):
            return node.value
        return self.loader.construct_object(node, deep=True)
