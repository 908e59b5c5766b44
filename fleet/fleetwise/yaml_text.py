"""Parses YAML with the short functions of CloudFormation, such as `!Ref` and `!GetAtt`.  Pure."""

from typing import Any, Final

import yaml

_SHORT: Final = {"Ref": "Ref", "Condition": "Condition"}


class _Loader(yaml.SafeLoader):
    """Reads plain data, and turns `!Sub text` into `{"Fn::Sub": "text"}`, as CloudFormation does."""


def _function(loader: _Loader, name: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    return {_SHORT.get(name, f"Fn::{name}"): value}


_Loader.add_multi_constructor("!", _function)
# A time is written as a text in AWS's API, and a date of YAML would become an object that JSON does not have.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML text.  Raises: ValueError, with line and column."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
