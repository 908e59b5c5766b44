"""Who may import whom, and which files are pure: the layout of docs/ARCHITECTURE.md, held.

A file is pure or touches the world.  A pure file imports nothing that reaches outside the process, calls nothing that
opens files or asks the time, and uses only pure files of the project.  A new file is entered in one of the two lists.
"""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PURE = """
agent/__init__.py agent/errors.py agent/long_form.py
agent/formats/__init__.py agent/formats/acks.py agent/formats/audience.py agent/formats/bundle.py
agent/formats/campaign.py agent/formats/catalogue.py agent/formats/codec.py agent/formats/columns.py
agent/formats/cut.py agent/formats/delta.py agent/formats/descriptions.py
agent/formats/layout.py agent/formats/ledger.py
agent/formats/seal.py agent/formats/toggles.py agent/formats/topics.py
agent/link/__init__.py agent/link/session.py
agent/pushes/__init__.py agent/pushes/receipts.py agent/pushes/release.py agent/pushes/trial.py
agent/serve/__init__.py
agent/sources/__init__.py agent/sources/ring_layout.py agent/sources/vehicle/*.py
agent/telemetry/__init__.py agent/telemetry/batcher.py agent/telemetry/holdings.py agent/telemetry/losses.py
agent/telemetry/policy.py
agent/telemetry/spool/__init__.py agent/telemetry/spool/batch.py agent/telemetry/spool/retention.py
agent/telemetry/uplink/__init__.py agent/telemetry/uplink/ahead.py agent/telemetry/uplink/bucket.py
agent/telemetry/uplink/flights.py agent/telemetry/uplink/link_policy.py agent/telemetry/uplink/schedule.py
agent/telemetry/uplink/unanswered.py
can_dbc/__init__.py can_dbc/bits.py can_dbc/checksums.py can_dbc/containers.py can_dbc/decoder.py can_dbc/encoder.py
can_dbc/errors.py can_dbc/frames.py can_dbc/physical.py can_dbc/plan.py can_dbc/selector.py
fleet/__init__.py fleet/arguments.py fleet/certificates.py fleet/clocks.py fleet/rows.py fleet/share.py
fleet/demo/__init__.py fleet/simulate/__init__.py fleet/simulate/extrapolate.py fleet/simulate/report.py
""".split()

WORLD = """
agent/__main__.py agent/app.py agent/apply.py agent/assembly.py agent/check.py agent/clock.py agent/command_line.py
agent/decode.py
agent/descriptors.py agent/durable.py agent/identity.py agent/listen.py agent/live_status.py agent/log.py
agent/memory.py agent/online.py agent/plans.py
agent/sd_notify.py agent/settings.py agent/status.py agent/supervisor.py agent/tasks.py
agent/formats/evaluation.py
agent/link/endpoint.py agent/link/keeper.py agent/link/metered.py agent/link/mqtt.py
agent/pushes/examine.py agent/pushes/pushes.py agent/pushes/store.py agent/pushes/trust.py agent/pushes/validate.py
agent/pushes/verifier.py
agent/serve/http.py agent/serve/toggles.py
agent/sources/feeder.py agent/sources/logs.py agent/sources/mf4.py agent/sources/messages.py
agent/sources/packet_ring.py agent/sources/pacing.py
agent/sources/python_can.py agent/sources/replay.py agent/sources/virtual_vehicle.py
agent/telemetry/collector.py agent/telemetry/outbox.py agent/telemetry/references.py
agent/telemetry/spool/account.py agent/telemetry/spool/catalogues.py agent/telemetry/spool/files.py
agent/telemetry/spool/index.py agent/telemetry/spool/ledger.py agent/telemetry/spool/recovery.py
agent/telemetry/spool/room.py agent/telemetry/spool/schema.py agent/telemetry/spool/spool.py
agent/telemetry/spool/transactions.py
agent/telemetry/uplink/link_gate.py agent/telemetry/uplink/uplink.py
can_dbc/cache.py can_dbc/database.py
fleet/__main__.py fleet/broker.py fleet/catalogues.py fleet/compact.py fleet/create.py fleet/enrol.py fleet/folder.py
fleet/inbox.py fleet/intake.py
fleet/keys.py fleet/lake.py fleet/ledger.py fleet/overlaps.py fleet/process.py fleet/publish.py
fleet/quarantine.py fleet/query.py fleet/receiver.py fleet/registry.py
fleet/repository.py fleet/store.py fleet/sync.py fleet/demo/*.py
fleet/simulate/account.py fleet/simulate/enrolment.py fleet/simulate/processes.py fleet/simulate/run.py
fleet/simulate/vehicle.py fleet/simulate/windows.py
""".split()

OUTSIDE = set(
    "aiomqtt asyncio can concurrent deltalake duckdb fcntl http logging multiprocessing os paho random secrets "
    "serial shutil signal socket sqlite3 ssl structlog subprocess tempfile threading time tuf urllib uuid".split()
)
OPENING = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "mkdir", "unlink", "stat", "iterdir", "glob"}
ASKING = {"now", "today", "utcnow", "time_ns", "monotonic", "urandom"}

MAY_IMPORT = {
    "agent.errors": set(),
    "agent.durable": {"agent.errors"},
    "agent.command_line": {"agent.errors"},
    "agent.tasks": set(),
    "agent.formats": {"agent.errors", "agent.formats"},
    "agent.link": {"agent.errors", "agent.link", "agent.durable"},
    "agent.sources": {"agent.errors", "agent.sources", "can_dbc"},
    "agent.telemetry": {
        "agent.errors",
        "agent.durable",
        "agent.clock",
        "agent.tasks",
        "agent.formats",
        "agent.link",
        "agent.telemetry",
        "can_dbc",
    },
    "agent.pushes": {"agent.errors", "agent.durable", "agent.formats", "agent.link", "agent.pushes", "agent.tasks"},
    "agent.serve": {"agent.errors", "agent.durable", "agent.formats", "agent.serve"},
    "can_dbc": {"can_dbc"},
    "fleet": {
        "agent.errors",
        "agent.durable",
        "agent.formats",
        "agent.link",
        "agent.log",
        "agent.command_line",
        "can_dbc",
        "fleet",
    },
}
# Demonstration and simulation play vehicles as well as the fleet: they make the virtual vehicle's frames.
ALSO = {"fleet.demo": {"agent.sources.virtual_vehicle"}, "fleet.simulate": {"agent.sources.virtual_vehicle"}}
ONLY_IMPORT = {
    "aiomqtt": ["agent/link/mqtt.py"],
    "paho": ["agent/link/mqtt.py"],
    "tuf": ["agent/pushes/trust.py", "fleet/publish.py", "fleet/repository.py", "fleet/sync.py"],
    "deltalake": ["fleet/compact.py", "fleet/lake.py", "fleet/query.py", "fleet/demo/verdict.py", "fleet/store.py"],
    "openfeature": ["agent/formats/evaluation.py"],
}


def _files() -> list[str]:
    found = [str(p.relative_to(ROOT)) for top in ("agent", "can_dbc", "fleet") for p in (ROOT / top).rglob("*.py")]
    return sorted(name for name in found if not name.endswith("_pb2.py"))


def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(name: str) -> set[str]:
    """Dotted names that a file imports; `from a import b` gives a.b where that is a module of the project, else a."""
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


def _listed(name: str, patterns: list[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _is_pure(name: str) -> bool:
    return _listed(name, PURE)


def _file_of(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


@pytest.mark.parametrize("name", _files())
def test_every_file_is_listed_as_pure_or_as_touching_the_world(name: str) -> None:
    pure = name in PURE or (_listed(name, PURE) and name not in WORLD)
    assert pure or _listed(name, WORLD), f"{name}: enter it in PURE or WORLD"


@pytest.mark.parametrize("name", [name for name in _files() if _is_pure(name)])
def test_a_pure_file_reaches_nothing_outside(name: str) -> None:
    for module in _imports(name):
        assert module.split(".")[0] not in OUTSIDE, f"{name} imports {module}"
        if module.split(".")[0] in {"agent", "can_dbc", "fleet"} and not module.endswith("_pb2"):
            assert _is_pure(_file_of(module)), f"{name} is pure and imports {module}, which is not"
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in OPENING | ASKING, f"{name}:{node.lineno} calls {called}()"


@pytest.mark.parametrize("name", _files())
def test_imports_point_one_way(name: str) -> None:
    module = _module(name)
    rooms = [room for room in MAY_IMPORT if module == room or module.startswith(f"{room}.")]
    allowed = set().union(*(MAY_IMPORT[room] for room in rooms)) if rooms else None
    also = set().union(*(names for room, names in ALSO.items() if module.startswith(room)))
    for imported in _imports(name):
        if imported.split(".")[0] not in {"agent", "can_dbc", "fleet"}:
            continue
        if allowed is None:  # the agent's own shell knows the rooms, and nothing of the fleet
            assert not imported.startswith("fleet"), f"{name} imports {imported}"
            continue
        fits = any(imported == room or imported.startswith(f"{room}.") for room in allowed)
        assert fits or imported in also or imported == "can_dbc", f"{name} imports {imported}"


def test_only_app_knows_both_telemetry_and_pushes() -> None:
    both = [
        name
        for name in _files()
        if any(i.startswith("agent.telemetry") for i in _imports(name))
        and any(i.startswith("agent.pushes") for i in _imports(name))
    ]
    assert both == ["agent/app.py", "agent/apply.py"]


@pytest.mark.parametrize("library", sorted(ONLY_IMPORT))
def test_a_library_with_traps_is_imported_in_its_room_only(library: str) -> None:
    importers = [name for name in _files() if any(i.split(".")[0] == library for i in _imports(name))]
    assert set(importers) <= set(ONLY_IMPORT[library])
    assert importers
