"""Enforces the layout of docs/ARCHITECTURE.md: which room may import which, and which files are pure.

A file is pure or touches the world.  A pure file imports nothing that reaches outside the process, calls nothing that
opens files or asks for the time, and uses only pure files of the project.  A file that is not listed as pure must
touch the world, so a new pure file must be added to PURE.
"""

import ast
import re
from fnmatch import fnmatch
from ipaddress import ip_address
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("agent", "can_dbc", "fleet", "lab", "simulator")

PURE = """
*/__init__.py agent/errors.py agent/system/arguments.py
agent/commands/check_report.py agent/commands/config_option.py agent/commands/long_form.py
agent/commands/status_text.py agent/commands/version.py
agent/runtime/limits.py agent/settings/mistakes.py agent/settings/remote.py agent/settings/sections.py
agent/formats/iso_time.py agent/formats/renewal.py agent/formats/topics.py agent/formats/up/*.py
agent/formats/down/audience.py agent/formats/down/authorities.py agent/formats/down/bundle.py
agent/formats/down/campaign.py agent/formats/down/campaign_fields.py agent/formats/down/chunks.py
agent/formats/down/conditions/*.py agent/formats/down/databases.py
agent/formats/down/mapping/catalog.py agent/formats/down/mapping/catalog_check.py
agent/formats/down/mapping/pushed.py
agent/formats/down/mapping/entries.py agent/formats/down/mapping/formula.py
agent/formats/down/mapping/operations.py agent/formats/down/mapping/reading.py agent/formats/down/mapping/tokens.py
agent/formats/down/own_list.py agent/formats/down/recipient.py
agent/formats/down/rule_cost.py agent/formats/down/rules.py agent/formats/down/strict.py
agent/formats/down/targeting.py agent/formats/down/toggles.py agent/formats/down/validity.py
agent/formats/down/vehicle_rules.py
agent/link/packets.py agent/link/session.py
agent/system/syscall_filter.py agent/system/times.py agent/system/words.py
agent/pushes/freshness.py agent/pushes/health.py agent/pushes/lean_import.py agent/pushes/readings.py
agent/pushes/receipts.py agent/pushes/record.py agent/pushes/release.py agent/pushes/requests.py
agent/pushes/trial.py
agent/serve/connections.py
agent/sources/lean_import.py agent/sources/log_kinds.py agent/sources/log_lines.py agent/sources/log_readers.py
agent/sources/log_times.py agent/sources/mf4_groups.py agent/sources/ring_layout.py
agent/telemetry/losses.py agent/telemetry/collect/batcher.py agent/telemetry/collect/buffer.py
agent/telemetry/collect/campaign.py agent/telemetry/collect/conditions/*.py
agent/telemetry/collect/consumer.py agent/telemetry/collect/decode_counts.py
agent/telemetry/collect/dispatcher.py agent/telemetry/collect/holdings.py agent/telemetry/collect/mapped.py
agent/telemetry/collect/mapped_path.py agent/telemetry/collect/names.py
agent/telemetry/collect/open_window.py agent/telemetry/collect/signal_tables.py
agent/telemetry/collect/senders.py agent/telemetry/collect/thinning.py agent/telemetry/collect/vss.py
agent/telemetry/outbox/packer.py agent/telemetry/outbox/sealer.py
agent/telemetry/spool/batch.py agent/telemetry/spool/boots.py agent/telemetry/spool/names.py
agent/telemetry/spool/memory.py agent/telemetry/spool/retention.py agent/telemetry/spool/shortage.py
agent/telemetry/uplink/bucket.py agent/telemetry/uplink/catalogue_requests.py agent/telemetry/uplink/flights.py
agent/telemetry/uplink/late_answers.py agent/telemetry/uplink/link_policy.py agent/telemetry/uplink/outstanding.py
agent/telemetry/uplink/pauses.py agent/telemetry/uplink/schedule.py
agent/telemetry/uplink/silence.py agent/telemetry/uplink/turns.py agent/telemetry/uplink/unanswered.py
can_dbc/arxml.py can_dbc/bits.py can_dbc/buses.py can_dbc/compile.py can_dbc/compu_method.py can_dbc/containers.py
can_dbc/dbc_reader/*.py can_dbc/decoder.py can_dbc/defects.py can_dbc/description.py can_dbc/encodings.py
can_dbc/errors.py can_dbc/frames.py can_dbc/kcd.py can_dbc/message_decoder.py can_dbc/noted.py
can_dbc/plan.py can_dbc/sym.py can_dbc/refusals.py can_dbc/selector.py can_dbc/values.py
fleet/lake/batch_key.py fleet/lake/clocks.py fleet/lake/opened_batch.py fleet/lake/rows.py fleet/lake/schema.py
fleet/receiving/answers.py fleet/receiving/intake.py fleet/receiving/intervals.py fleet/receiving/message.py
fleet/receiving/share.py fleet/receiving/totals.py
fleet/fleetwise/[!ft]*.py fleet/fleetwise/fields.py fleet/fleetwise/findings.py fleet/fleetwise/forms.py
fleet/publishing/staged.py fleet/rollout/judge.py fleet/rollout/plan.py
fleet/publishing/overlap.py fleet/state/access_list.py fleet/state/certificates.py fleet/state/pkcs11_uri.py
fleet/state/vehicle_record.py
lab/demo/oracle_campaigns.py lab/demo/oracle_signals.py lab/simulate/extrapolate.py lab/simulate/report.py
simulator/[!f]*.py
""".split()

OUTSIDE = set(
    "aiomqtt asyncio can concurrent ctypes deltalake duckdb fcntl http logging multiprocessing os paho random secrets "
    "serial shutil signal socket sqlite3 ssl structlog subprocess tempfile threading time tuf urllib uuid".split()
)
OPENING = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "mkdir", "unlink", "stat", "iterdir", "glob"}
ASKING = {"now", "today", "utcnow", "time_ns", "monotonic", "urandom"}

# The imports that each room may have besides itself.  Rooms that are not listed may import everything of their program.
MAY_IMPORT = {
    "agent.errors": set(),
    "agent.system": {"agent.errors"},
    # `can_dbc.values` defines raw integers for vehicle and wire, and `settings.remote` what the fleet can set.
    "agent.formats": {"agent.errors", "can_dbc.values", "agent.settings.remote"},
    "agent.link": {"agent.errors", "agent.formats", "agent.system"},
    "agent.settings": {"agent.errors", "agent.formats", "agent.system", "can_dbc"},
    "agent.sources": {"agent.errors", "agent.system", "agent.formats", "can_dbc", "simulator.frames"},
    "agent.telemetry": {"agent.errors", "agent.system", "agent.formats", "agent.link", "can_dbc"},
    "agent.pushes": {"agent.errors", "agent.system", "agent.formats", "agent.link"},
    "agent.serve": {"agent.errors", "agent.system", "agent.formats"},
    "can_dbc": set(),
    "simulator": {"can_dbc"},
    # `fleet publish` says what a campaign would collect, and only one place names signals and applies rules.  The fleet
    # compiles databases as vehicles do, before it signs them.
    "fleet": {"agent.errors", "agent.system", "agent.formats", "agent.link", "can_dbc"}
    | {"agent.telemetry.collect.names", "agent.telemetry.collect.campaign", "agent.settings.compiler"},
}
# The agent's shell (commands, runtime) may import all rooms of the agent.  The lab runs vehicles as well as the fleet.
SHELLS = {"agent": {"agent", "can_dbc"}, "lab": {"agent", "can_dbc", "fleet", "simulator", "lab"}}
ONLY_IMPORT = {
    "aiomqtt": ["agent/link/mqtt.py"],
    "paho": ["agent/link/mqtt.py"],
    "tuf": ["agent/pushes/trust.py", "agent/pushes/unpack.py", "agent/pushes/updater.py", "fleet/publishing/"],
    "deltalake": ["fleet/lake/", "fleet/receiving/store.py", "lab/demo/verdict.py"],
    "openfeature": ["agent/formats/down/evaluation.py"],
}


def _files() -> list[str]:
    found = [str(p.relative_to(ROOT)) for top in PACKAGES for p in (ROOT / top).rglob("*.py")]
    return sorted(name for name in found if not name.endswith("_pb2.py"))


def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(name: str) -> set[str]:
    """Return the dotted names that a file imports.  `from a import b` gives a.b if a.b is a module, otherwise a."""
    found: set[str] = set()
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{name}: relative import"
            for alias in node.names:
                path = ROOT / node.module.replace(".", "/") / alias.name
                inner = path.with_suffix(".py").exists() or path.is_dir()
                found.add(f"{node.module}.{alias.name}" if inner else node.module)
    return found


def _is_pure(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in PURE)


def _file_of(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def _reaches_outside(name: str) -> list[str]:
    found = []
    for module in sorted(_imports(name)):
        top = module.split(".")[0]
        if top in OUTSIDE:
            found.append(f"imports {module}")
        if top in PACKAGES and not module.endswith("_pb2") and not _is_pure(_file_of(module)):
            found.append(f"imports {module}, which is not pure")
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in OPENING | ASKING:
                found.append(f"line {node.lineno} calls {called}()")
    return found


@pytest.mark.parametrize("name", [name for name in _files() if _is_pure(name)])
def test_a_pure_file_reaches_nothing_outside(name: str) -> None:
    assert _reaches_outside(name) == []


@pytest.mark.parametrize("name", [name for name in _files() if not _is_pure(name)])
def test_a_file_that_reaches_nothing_outside_is_listed_as_pure(name: str) -> None:
    assert _reaches_outside(name), f"{name} touches nothing outside; add it to PURE"


@pytest.mark.parametrize("name", _files())
def test_imports_point_one_way(name: str) -> None:
    module = _module(name)
    rooms = [room for room in MAY_IMPORT if _within(module, room)]
    allowed = set(rooms).union(*(MAY_IMPORT[room] for room in rooms)) if rooms else SHELLS[module.split(".")[0]]
    for imported in _imports(name):
        # The package `agent` itself holds nothing but the version of the distribution.
        if imported.split(".")[0] in PACKAGES and imported != "agent":
            assert any(_within(imported, room) for room in allowed), f"{name} imports {imported}"


def _within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def test_only_the_runtime_knows_both_telemetry_and_pushes() -> None:
    both = [
        name
        for name in _files()
        if any(i.startswith("agent.telemetry") for i in _imports(name))
        and any(i.startswith("agent.pushes") for i in _imports(name))
    ]
    assert both == ["agent/runtime/apply.py", "agent/runtime/assembly.py", "agent/runtime/vital_signs.py"]


def test_no_file_waits_with_a_function_that_can_hide_a_cancellation() -> None:
    """Under Python 3.11, asyncio.wait_for drops a cancellation that comes when the awaited work ends (gh-86296)."""
    waits = [
        f"{name}, line {node.lineno}: use asyncio.timeout"
        for name in _files()
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.Attribute) and node.attr == "wait_for" and ast.unparse(node.value) == "asyncio"
    ]
    assert not waits


GROUP = re.compile(r"(?<![\w.:])(?:[0-9a-fA-F]{0,4}:[0-9a-fA-F:]+|\d{1,3}(?:\.\d{1,3}){3})(?![\w.])")


def _multicast_groups(text: str) -> list[str]:
    """Return the multicast groups in `text` whose packets can leave the machine."""
    found = []
    for word in GROUP.findall(text):
        try:
            address = ip_address(word)
        except ValueError:
            continue
        # Groups of interface scope (ff01) stay on the machine (RFC 4291, section 2.7); IPv4 has no such groups.
        if address.is_multicast and not word.lower().startswith("ff01:"):
            found.append(word)
    return found


def _texts() -> list[str]:
    tops = ("tests", "lab", "bench", *PACKAGES)
    files = {path for top in tops for path in (ROOT / top).rglob("*.py")} - {Path(__file__)}
    return sorted(str(path.relative_to(ROOT)) for path in files)


def test_no_program_and_no_test_sends_multicast_that_leaves_the_machine() -> None:
    assert {name: groups for name in _texts() if (groups := _multicast_groups((ROOT / name).read_text()))} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('group = "ff15:7079:7468:6f6e:6465:6d6f:6d63:6173"', ["ff15:7079:7468:6f6e:6465:6d6f:6d63:6173"]),
        ("channel='239.74.163.2'", ["239.74.163.2"]),
        ("FF02::1 and ff0e::7", ["FF02::1", "ff0e::7"]),
        ('"224.0.0.1:4000"', ["224.0.0.1"]),
        ("ff01::7079 ::1 127.0.0.1 10.0.0.1 12:30:45 a::b x = y[1:2]", []),
    ],
)
def test_the_search_finds_groups_of_every_form(text: str, found: list[str]) -> None:
    assert _multicast_groups(text) == found


@pytest.mark.parametrize("library", sorted(ONLY_IMPORT))
def test_a_library_with_traps_is_imported_in_its_room_only(library: str) -> None:
    importers = [name for name in _files() if any(i.split(".")[0] == library for i in _imports(name))]
    for name in importers:
        assert name.startswith(tuple(ONLY_IMPORT[library])), f"{name} imports {library}"
    assert importers
