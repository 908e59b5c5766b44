"""Takes over all documents together: reads them, and returns what to write and what became of each.

Signal catalogues come first, then decoder manifests, then all else, because campaigns name signals that decoders
describe, and decoders describe signals whose units the catalogue has.  The report keeps the order of the files.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from agent.errors import Permanent
from agent.formats.down.databases import name_of_file
from agent.formats.down.documents import KINDS
from can_dbc.compile import compile_plan
from can_dbc.database import parse
from can_dbc.errors import DatabaseError
from fleet.fleetwise import forms
from fleet.fleetwise.campaigns import Refused, Taken, take_campaign, take_state_template
from fleet.fleetwise.dbc_text import dbc_text
from fleet.fleetwise.decoders import is_resolved
from fleet.fleetwise.findings import Finding, Outcome, Remarks
from fleet.fleetwise.forms import FormError
from fleet.fleetwise.manifests import Manifest, Manifests
from fleet.fleetwise.recognition import Document, Unreadable
from fleet.fleetwise.signals import Catalogue, Known, Source
from fleet.fleetwise.vss_mapping import MappingError, tree_of

_MAPPINGS_ARE_READ: Final = any(kind.name == "mapping" for kind in KINDS)
_ORDER: Final = ("signal catalogue", "decoder manifest", "vehicle", "vehicles")
_MILLISECONDS: Final = {"MILLISECOND": 1, "SECOND": 1_000, "MINUTE": 60_000, "HOUR": 3_600_000}


class Result(msgspec.Struct, frozen=True):
    """The files to write, by their path in the folder, and what became of each document."""

    files: Mapping[str, bytes]
    findings: tuple[Finding, ...]


class _Read(msgspec.Struct, frozen=True):
    """A document whose form is right; `number` is its place in the report."""

    number: int
    document: Document
    form: forms.Form
    remarks: Remarks


class Takeover:
    """Takes over the documents of one fleet."""

    def __init__(self) -> None:
        self._findings: dict[int, Finding] = {}
        self._files: dict[str, bytes] = {}
        self._catalogue = Catalogue()
        self._manifests = Manifests()
        self._manifest_remarks: dict[str, Remarks] = {}
        self._known: Known | None = None
        self._vehicles: list[dict[str, Any]] = []
        self._strategies: dict[str, list[int | None]] = {}
        self._campaign_files: dict[str, str] = {}

    def take(self, documents: Iterable[Document | Unreadable]) -> Result:
        """Return what `documents` become."""
        read = [each for each in (self._read(n, found) for n, found in enumerate(documents)) if each is not None]
        first = [each for kind in _ORDER for each in self._sorted(read, kind)]
        for each in first:
            self._step(each)
        self._write_manifests()
        for each in read:
            if each not in first:
                self._step(each)
        if self._vehicles:
            self._write("vehicles.json", self._vehicles)
        for each in read:
            self._conclude(each)
        return Result(
            dict(sorted(self._files.items())), tuple(finding for _, finding in sorted(self._findings.items()))
        )

    def _read(self, number: int, found: Document | Unreadable) -> _Read | None:
        try:
            if isinstance(found, Document):
                return _Read(number, found, found.form(), Remarks())
            key, why = found.key, found.why
        except FormError as error:
            key, why = error.key, str(error)
        remarks = Remarks()
        remarks.add(key, why)
        self._findings[number] = Finding(Outcome.REFUSED, found.file, found.place, found.kind, "", remarks.all())
        return None

    def _sorted(self, read: list[_Read], kind: str) -> list[_Read]:
        """Return the documents of a kind, those with a name first: parts without one belong to them."""
        found = [each for each in read if each.document.kind == kind]
        return sorted(found, key=lambda each: getattr(each.form, "name", None) is None)

    def _step(self, read: _Read) -> None:
        step: Callable[[Any, Any, Remarks], str] = _STEPS[type(read.form)].__get__(self)
        try:
            name = step(read.form, read.document, read.remarks)
        except Refused as error:
            read.remarks.add(error.key, str(error))
            self._finish(read, Outcome.REFUSED, getattr(read.form, "name", None) or "")
        else:
            self._finish(read, Outcome.TAKEN, name)

    def _finish(self, read: _Read, outcome: Outcome, name: str) -> None:
        document = read.document
        self._findings[read.number] = Finding(outcome, document.file, document.place, document.kind, name)

    def _conclude(self, read: _Read) -> None:
        """Put the remarks into the finding; a later document may have added some to an earlier one."""
        finding, remarks = self._findings[read.number], read.remarks.all()
        outcome = Outcome.DIFFERENCE if finding.outcome is Outcome.TAKEN and remarks else finding.outcome
        self._findings[read.number] = msgspec.structs.replace(finding, outcome=outcome, remarks=remarks)

    def _catalogue_step(self, form: forms.SignalCatalogForm, _: Document, __: Remarks) -> str:
        for node in (*(form.nodes or ()), *(form.nodes_to_add or ()), *(form.nodes_to_update or ())):
            leaf = node.leaf()
            if leaf is not None:
                self._catalogue.datatypes[leaf.fully_qualified_name] = leaf.data_type
                self._catalogue.units[leaf.fully_qualified_name] = leaf.unit or ""
        return form.name or ""

    def _manifest_step(self, form: forms.DecoderManifestForm, document: Document, remarks: Remarks) -> str:
        manifest = self._manifests.manifest(form.name)
        manifest.add(form, document.file, remarks)
        self._manifest_remarks.setdefault(manifest.name, remarks)
        if form.next_token:
            remarks.add("nextToken", "the answer of AWS goes on; import its other pages too")
        return manifest.name

    def _write_manifests(self) -> None:
        sources: dict[str, Source] = {}
        mapped: set[str] = set()
        for manifest in self._manifests.all():
            remarks = self._manifest_remarks[manifest.name]
            sources |= manifest.sources()
            for interface_id in manifest.unknown_interfaces():
                remarks.add(
                    "",
                    f"no network interface {interface_id} was given; rename the folder of bus {interface_id}",
                )
            mapped |= self._write_manifest(manifest, remarks)
        if sources:
            self._known = Known(sources, frozenset(mapped), _MAPPINGS_ARE_READ)

    def _write_manifest(self, manifest: Manifest, remarks: Remarks) -> set[str]:
        """Write databases and mappings of a manifest, and return the names that need a mapping."""
        all_mapped: set[str] = set()
        for bus, messages in sorted(manifest.buses().items()):
            file = _file_name(manifest.name)
            folder = _folder_of(bus)
            if folder != bus:
                remarks.add("", f"a bus cannot be called {bus} here; it is called {folder}")
            path = f"dbc/{folder}/{file}.dbc"
            text = dbc_text(messages, self._catalogue.units).encode()
            for note in _notes(text, path):
                remarks.add("", note)
            self._files[path] = text
            mapped = {
                signal.fqn: f"{message.name}.{signal.name}"
                for message in messages
                for signal in message.signals
                if not is_resolved(message, signal)
            }
            if mapped:
                try:
                    tree = tree_of(mapped, self._catalogue.datatypes, self._catalogue.units)
                except MappingError as error:
                    remarks.add("", str(error))
                    continue
                self._write(f"mapping/{folder}/{file}.json", tree)
                all_mapped |= set(mapped)
        return all_mapped

    def _campaign_step(self, form: forms.CampaignForm, document: Document, remarks: Remarks) -> str:
        return self._write_campaign(
            take_campaign(document.content, form, document.file, self._known, remarks), document.file
        )

    def _template_step(self, form: forms.StateTemplateForm, document: Document, remarks: Remarks) -> str:
        strategies = self._strategies.get(form.name or "", ())
        return self._write_campaign(
            take_state_template(form, document.file, strategies, self._known, remarks), document.file
        )

    def _write_campaign(self, taken: Taken, file: str) -> str:
        path = f"campaigns/{_file_name(taken.name)}.json"
        if path in self._files:
            raise Refused(
                "name", f"{self._campaign_files[path]} has a campaign with this name already; rename one of them"
            )
        self._files[path], self._campaign_files[path] = taken.document(), file
        return taken.name

    def _model_step(self, form: forms.ModelManifestForm, _: Document, remarks: Remarks) -> str:
        # A model manifest lists branches, too, which no decoder names.
        if self._known is not None:
            missing = [
                fqn for fqn in form.nodes or () if fqn in self._catalogue.datatypes and fqn not in self._known.sources
            ]
            if missing:
                more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
                remarks.add("nodes", f"no decoder gives {missing[0]}{more}")
        return form.name or ""

    def _vehicle_step(self, form: forms.VehicleForm, _: Document, remarks: Remarks) -> str:
        self._vehicles.append(
            {
                "vehicleName": form.vehicle_name,
                "attributes": form.attributes or {},
                "decoderManifest": form.decoder_manifest_arn.rpartition("/")[2],
                "modelManifest": form.model_manifest_arn.rpartition("/")[2],
            }
        )
        remarks.add(
            "",
            f"{form.vehicle_name} is listed in vehicles.json and not enrolled: a vehicle gets keys and a "
            "random pseudonym from `fleet enrol`",
        )
        for use in form.state_templates or ():
            periodic = use.state_template_update_strategy.periodic
            rate = None if periodic is None else periodic.state_template_update_rate
            milliseconds = None if rate is None else rate.value * _MILLISECONDS[rate.unit]
            self._strategies.setdefault(use.identifier, []).append(milliseconds)
        return form.vehicle_name

    def _vehicles_step(self, form: forms.VehiclesForm, document: Document, remarks: Remarks) -> str:
        for vehicle in form.vehicles:
            self._vehicle_step(vehicle, document, remarks)
        return ""

    def _write(self, path: str, content: Any) -> None:
        self._files[path] = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


_STEPS: Final[Mapping[type[Any], Any]] = {
    forms.CampaignForm: Takeover._campaign_step,
    forms.DecoderManifestForm: Takeover._manifest_step,
    forms.SignalCatalogForm: Takeover._catalogue_step,
    forms.ModelManifestForm: Takeover._model_step,
    forms.VehicleForm: Takeover._vehicle_step,
    forms.VehiclesForm: Takeover._vehicles_step,
    forms.StateTemplateForm: Takeover._template_step,
}


def _folder_of(bus: str) -> str:
    """Return the bus itself, if pushed databases may name it, and otherwise a name that they may have."""
    try:
        name_of_file(f"{bus}/x.dbc")
    except Permanent:
        return re.sub(r"\W", "_", bus, flags=re.ASCII)
    return bus


def _file_name(name: str) -> str:
    # A colon may stand in names of FleetWise, but not in file names everywhere.
    return name.replace(":", "-")


def _notes(text: bytes, path: str) -> list[str]:
    """Return what the vehicle's own reader and compiler note on a database that was written here."""
    try:
        return list(compile_plan([parse(text, "dbc", path)]).notes)
    except DatabaseError as error:
        return [str(error)]
