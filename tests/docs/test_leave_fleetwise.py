"""The commands of docs/guides/leave-fleetwise.md work as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "leave-fleetwise.md"


def test_the_commands_lead_from_documents_of_fleetwise_to_a_publication(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    shown = []
    for block in blocks:
        done = subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=tmp_path,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        shown.append(done.stdout)
    _, imported, decoded, published = shown
    assert "3 documents: 2 taken, 1 taken with a difference, 0 refused." in imported
    assert "dataExtraDimensions: samples carry no attributes" in imported
    for sample in ("Brakes,Pressure,400,200.0,,bar", "Brakes,Pressure,600,300.0,,bar", "Engine,Torque,-2,-12"):
        assert sample in decoded
    assert "campaign braking collects 2 signals" in decoded
    assert "campaigns/" in published
    assert "dbc/can0/model-a.dbc" in published


def test_links_of_the_guide_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", PAGE.read_text()):
        assert (PAGE.parent / target).resolve().exists(), target
