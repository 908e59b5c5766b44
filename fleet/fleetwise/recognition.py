"""Finds out which documents of AWS IoT FleetWise a file holds.  Pure.

A file may hold a document of the API, a list of parts of one (`[{"fullyQualifiedName": ..., "canSignal": ...}, ...]`),
a VSS tree in JSON, or a CloudFormation template, which may hold many documents.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from fleet.fleetwise import cloudformation, forms
from fleet.fleetwise.forms import Form, FormError, read_form

FORM_OF: Final[Mapping[str, type[Any]]] = {
    "campaign": forms.CampaignForm,
    "decoder manifest": forms.DecoderManifestForm,
    "signal catalogue": forms.SignalCatalogForm,
    "model manifest": forms.ModelManifestForm,
    "vehicle": forms.VehicleForm,
    "vehicles": forms.VehiclesForm,
    "state template": forms.StateTemplateForm,
}
_BY_FIELD: Final = {
    "collectionScheme": "campaign",
    "signalDecoders": "decoder manifest",
    "networkInterfaces": "decoder manifest",
    "signalDecodersToAdd": "decoder manifest",
    "signalDecodersToUpdate": "decoder manifest",
    "signalDecodersToRemove": "decoder manifest",
    "networkInterfacesToAdd": "decoder manifest",
    "networkInterfacesToUpdate": "decoder manifest",
    "networkInterfacesToRemove": "decoder manifest",
    "stateTemplateProperties": "state template",
    "vehicles": "vehicles",
    "vehicleName": "vehicle",
    "nodesToAdd": "signal catalogue",
    "nodesToUpdate": "signal catalogue",
    "nodesToRemove": "signal catalogue",
    "nodeCounts": "signal catalogue",
}
"""The kind of a document by a field that only this kind has."""
_NODE_SORTS: Final = frozenset(("branch", "sensor", "actuator", "attribute", "struct", "property"))
_WITHOUT_CONTENT: Final = {
    "campaignSummaries": "a list of campaigns lacks their content; import what `aws iotfleetwise get-campaign` prints",
    "vehicleSummaries": "a list of vehicles has no attributes; import what `aws iotfleetwise get-vehicle` prints",
    "summaries": "a list of resources has no content of theirs; import what `get-...` or `list-...-signals` prints",
    "networkFileDefinitions": "the DBC files of import-decoder-manifest need no import; give the files themselves to "
    "`fleet publish --database`",
}


class Document(msgspec.Struct, frozen=True):
    """One document with its content in the spelling of the API, before its form is checked."""

    file: str
    place: str
    kind: str
    content: Mapping[str, Any]

    def key(self, field: str) -> str:
        """Return the path of `field` in the file."""
        return f"{self.place}.{field}" if self.place and field else self.place or field

    def form(self) -> Form:
        """Return the content, whose form is checked.  Raises: FormError."""
        form: Form = read_form(self.content, FORM_OF[self.kind])
        return form


class Unreadable(msgspec.Struct, frozen=True):
    """A part of a file that is no document that can be read, and why."""

    file: str
    place: str
    key: str
    kind: str
    why: str


def documents_in(content: Any, file: str, place: str = "") -> Iterator[Document | Unreadable]:
    """Yield the documents in the parsed content of a file."""
    if cloudformation.is_template(content):
        yield from _resources(content["Resources"], file)
    elif isinstance(content, list):
        yield from _parts(content, file, place)
    elif not isinstance(content, Mapping):
        yield Unreadable(file, place, "", "unknown document", "this is neither an object nor a list")
    elif cloudformation.has_capitals(content) and not _is_tree(content):
        yield _capitals(content, file, place)
    else:
        yield _document(content, file, place)


def _resources(resources: Mapping[str, Any], file: str) -> Iterator[Document | Unreadable]:
    found = False
    for name, resource in resources.items():
        kind = resource.get("Type") if isinstance(resource, Mapping) else None
        if not isinstance(kind, str) or not cloudformation.is_fleetwise(kind):
            continue
        found = True
        place = f"Resources.{name}.Properties"
        if kind not in cloudformation.RESOURCES:
            yield Unreadable(
                file, place, "", str(kind), "a fleet of FleetWise is an --audience of `fleet publish` here"
            )
        else:
            yield _converted(resource.get("Properties"), file, place, cloudformation.RESOURCES[kind])
    if not found:
        yield Unreadable(file, "Resources", "", "template", "the template has no resource of AWS::IoTFleetWise")


def _capitals(content: Mapping[str, Any], file: str, place: str) -> Document | Unreadable:
    names = {key[:1].lower() + key[1:] for key in content}
    kind = _kind_by_fields(names, content.get("Nodes"))
    if kind is None:
        return _unknown(file, place)
    return _converted(content, file, place, kind)


def _converted(content: Any, file: str, place: str, kind: str) -> Document | Unreadable:
    if not isinstance(content, Mapping):
        return Unreadable(file, place, "", kind, "the resource has no Properties")
    try:
        return Document(file, place, kind, cloudformation.properties(content, kind))
    except cloudformation.ComputedValue as error:
        return Unreadable(file, place, error.key, kind, str(error))


def _parts(content: list[Any], file: str, place: str) -> Iterator[Document | Unreadable]:
    """Yield the document that a list of its parts stands for, or each document of a list of documents."""
    first = content[0] if content and isinstance(content[0], Mapping) else {}
    if "fullyQualifiedName" in first and "interfaceId" in first:
        yield Document(file, place, "decoder manifest", {"signalDecoders": content})
    elif "interfaceId" in first:
        yield Document(file, place, "decoder manifest", {"networkInterfaces": content})
    elif len(first) == 1 and not _NODE_SORTS.isdisjoint(first):
        yield Document(file, place, "signal catalogue", {"nodes": content})
    elif not first:
        yield _unknown(file, place)
    else:
        for index, each in enumerate(content):
            yield from documents_in(each, file, f"{place}[{index}]")


def _document(content: Mapping[str, Any], file: str, place: str) -> Document | Unreadable:
    for field, why in _WITHOUT_CONTENT.items():
        if field in content:
            return Unreadable(file, place, field, "list", why)
    if "vss" in content:
        return _catalogue_of_vss(content, file, place)
    if (kind := _kind_by_fields(content, content.get("nodes"))) is not None:
        return Document(file, place, kind, content)
    if _is_tree(content):
        try:
            return Document(file, place, "signal catalogue", {"nodes": _nodes_of_tree(content, "")})
        except FormError as error:
            return Unreadable(file, place, error.key, "VSS tree", str(error))
    return _unknown(file, place)


def _kind_by_fields(fields: Any, nodes: Any) -> str | None:
    for field, kind in _BY_FIELD.items():
        if field in fields:
            return kind
    if "nodes" in fields:
        texts = isinstance(nodes, list) and any(isinstance(each, str) for each in nodes)
        return "model manifest" if texts or "signalCatalogArn" in fields else "signal catalogue"
    if "modelManifestArn" in fields:
        return "decoder manifest"
    return "model manifest" if "signalCatalogArn" in fields else None


def _unknown(file: str, place: str) -> Unreadable:
    return Unreadable(
        file,
        place,
        "",
        "unknown document",
        "this is no document of AWS IoT FleetWise: expected a campaign, a decoder manifest or a list of decoders or "
        "network interfaces, a signal catalogue or its nodes, a VSS tree, a model manifest, a vehicle, or a state "
        "template",
    )


def _is_tree(content: Mapping[str, Any]) -> bool:
    return bool(content) and all(isinstance(node, Mapping) and "type" in node for node in content.values())


def _catalogue_of_vss(content: Mapping[str, Any], file: str, place: str) -> Document | Unreadable:
    """Return the catalogue of an import-signal-catalog request, which has a VSS tree as a text."""
    vss = content["vss"]
    text = vss.get("vssJson") if isinstance(vss, Mapping) else None
    key = "vss.vssJson"
    if not isinstance(text, str):
        return Unreadable(file, place, key, "signal catalogue", "the text of a VSS tree is missing")
    try:
        tree = json.loads(text)
        if not isinstance(tree, Mapping) or not _is_tree(tree):
            raise ValueError("this is no VSS tree")
        nodes = _nodes_of_tree(tree, "")
    except (ValueError, RecursionError, FormError) as error:
        return Unreadable(file, place, key, "signal catalogue", f"the text is no VSS tree: {error}")
    return Document(
        file, place, "signal catalogue", {key: content[key] for key in content if key != "vss"} | {"nodes": nodes}
    )


def _nodes_of_tree(tree: Mapping[str, Any], above: str) -> list[dict[str, Any]]:
    """Return the nodes of a VSS tree as the API has them.  Raises: FormError naming the path of a node at fault."""
    nodes: list[dict[str, Any]] = []
    for name, node in tree.items():
        path = f"{above}{name}"
        sort = node.get("type") if isinstance(node, Mapping) else None
        if sort == "branch":
            nodes.append({"branch": {"fullyQualifiedName": path}})
            children = node.get("children", {})
            if not isinstance(children, Mapping):
                raise FormError(path, "the children of a branch are no object")
            nodes += _nodes_of_tree(children, f"{path}.")
        elif sort in ("sensor", "actuator", "attribute"):
            nodes.append({sort: _leaf_of_tree(node, path)})
        else:
            raise FormError(path, "the type of a node is branch, sensor, actuator or attribute")
    return nodes


def _leaf_of_tree(node: Mapping[str, Any], path: str) -> dict[str, Any]:
    datatype = str(node.get("datatype", "unknown")).upper()
    leaf = {"fullyQualifiedName": path, "dataType": f"{datatype[:-2]}_ARRAY" if datatype.endswith("[]") else datatype}
    return leaf | {name: node[name] for name in ("unit", "min", "max") if node.get(name) is not None}
