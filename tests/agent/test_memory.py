"""Memory that was freed, and code that is not in use, are not kept."""

import subprocess
import sys

import pytest

WINDOWS = """
import sys, threading
import numpy as np
from agent.memory import give_back_freed

if sys.argv[1:] == ["give back"]:
    give_back_freed()

def resident_mb():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1_000

def window():
    arrays = [np.ones(count, np.uint8) for count in [20_000_000, *[200_000] * 100]]
    held.append(np.ones(1_000))  # what stays is behind what goes
    del arrays

held = []
before = resident_mb()
for _ in range(4):
    worker = threading.Thread(target=window)
    worker.start()
    worker.join()
print(resident_mb() - before)
"""


def grown_mb(*arguments: str) -> float:
    done = subprocess.run([sys.executable, "-c", WINDOWS, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_what_windows_took_goes_back_to_the_system() -> None:
    if (kept_mb := grown_mb()) < 10:
        pytest.skip("this C library gives back by itself")
    assert grown_mb("give back") < kept_mb / 4


CODE = """
import ssl, sqlite3
import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from agent.memory import give_back_code

def code_mb():
    line = next(line for line in open("/proc/self/status") if line.startswith("RssFile:"))
    return int(line.split()[1]) / 1_000

def work():
    key = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers().x % 7
    sqlite3.connect(":memory:").execute("select 1")
    return len(ssl.create_default_context().get_ciphers()), np.linalg.inv(np.eye(3)) * key

work()
loaded_mb, spans = code_mb(), give_back_code(frozenset())
seen_mb, again = code_mb(), give_back_code(spans)
given_back_mb = code_mb()
work()
import decimal, lzma, xml.parsers.expat
give_back_code(again)
assert decimal.Decimal("0.5") * 2 == 1 and lzma.decompress(lzma.compress(b"x" * 1000)) == b"x" * 1000
work()
print(loaded_mb - seen_mb, loaded_mb - given_back_mb)
"""


def test_code_is_given_back_and_runs_again_when_it_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    seen_mb, given_back_mb = map(float, done.stdout.split())
    assert seen_mb < 1  # what may still be loading stays
    assert given_back_mb > 5
