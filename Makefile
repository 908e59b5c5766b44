# Every target sets up what it needs: a virtual environment with hash-locked dependencies and, as root, Debian packages.
# PACKAGES of a target holds for its prerequisite $(READY) too, so that all missing packages are named at once.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := agent bench can_dbc fleet lab simulator tests setup.py

.PHONY: help setup demo test bins conditions pushes keys-drill trial queries attacks conformance fuzz faults powercut cuts soak lint bench simulate rollout install lock proto clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 10

setup: $(READY)  ## make the virtual environment .venv with the locked dependencies

$(READY): requirements/dev.txt pyproject.toml agent/__init__.py
	@PYTHON=$(PYTHON) requirements/install-debian py:ensurepip=python3-venv $(PACKAGES)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@mkdir -p build && echo "Installing the locked Python dependencies into $(VENV) (log: build/pip.log)"
	@{ $(BIN)/pip install --disable-pip-version-check --require-hashes -r requirements/dev.txt && \
	   $(BIN)/pip install --disable-pip-version-check --no-index --no-deps --no-build-isolation -e . ; } >build/pip.log 2>&1 \
	   || { tail -n 20 build/pip.log; echo "pip failed; the whole log is build/pip.log"; exit 1; }
	@touch $@

demo: PACKAGES := mosquitto=mosquitto
demo: $(READY)  ## play the whole product in one drive: make demo [LOG=capture.log DBC="can0=a.dbc can1=b.dbc" MATCH=exact|pgn]
	@requirements/install-debian $(PACKAGES)
	@$(BIN)/headunit-agent demo $(if $(LOG),--log '$(LOG)') $(foreach d,$(DBC),--dbc '$(d)') $(if $(MATCH),--match $(MATCH)) $(DEMO)

test: PACKAGES := mosquitto=mosquitto systemd-analyze=systemd linux.uml=user-mode-linux \
    modprobe=kmod ip=iproute2 cangen=can-utils mkfs.ext4=e2fsprogs softhsm2-util=softhsm2 pkcs11-tool=opensc
test: $(READY)  ## run all tests, with a real mosquitto; REQUIRE_VCAN=1 requires virtual CAN: make test [ARGS="-k spool"]
	@requirements/install-debian $(PACKAGES)
	@pytest="$(BIN)/python -m pytest"; if [ -n '$(ARGS)' ]; then exec $$pytest $(ARGS); fi; \
	    $$pytest -n auto --maxprocesses 4 --dist worksteal --ignore tests/vcan --ignore tests/attacks --ignore tests/cuts && \
	    $$pytest tests/attacks tests/cuts tests/vcan  # after the others, because they load the machine or must not share it

attacks: PACKAGES := mosquitto=mosquitto linux.uml=user-mode-linux modprobe=kmod ip=iproute2 cangen=can-utils mkfs.ext4=e2fsprogs
attacks: $(READY)  ## play all attacks, those of vehicles for a minute each: make attacks [SECONDS=60] (build/attacks.json)
	@requirements/install-debian $(PACKAGES)
	@rm -f build/attacks.json; REQUIRE_VCAN=1 ATTACK_SECONDS=$(or $(SECONDS),60) \
	    $(BIN)/python -m pytest -m attack $(ARGS)

bins: $(READY)  ## measure what a vehicle downloads if 1 % of 34 million vehicles have documents of their own (build/bins.json)
	@mkdir -p build && $(BIN)/python -m bench.bins $(ARGS)

conformance: $(READY)  ## play the cases of the public TUF conformance suite: make conformance [ARGS="--case rollback"] (build/conformance.json)
	@$(BIN)/python -m tests.conformance $(ARGS)

faults: PACKAGES := mosquitto=mosquitto
faults: $(READY)  ## play kills, cuts, full and restored disks, clock jumps and hostile messages: make faults [SEED=1 MINUTES=15 ARGS=--json] (build/faults.json)
	@requirements/install-debian $(PACKAGES)
	@$(if $(SEED),SEED=$(SEED)) $(if $(MINUTES),MINUTES=$(MINUTES)) $(BIN)/python -m tests.faults $(ARGS)

soak: PACKAGES := mosquitto=mosquitto
soak: $(READY)  ## run agent and receiver under load and watch their memory: make soak [MINUTES=60] (build/soak.json)
	@requirements/install-debian $(PACKAGES)
	@$(BIN)/python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

pushes: PACKAGES := mosquitto=mosquitto
pushes: $(READY)  ## measure processor time and memory of many pushes to one agent: make pushes [PUSHES=1000] (build/pushes.json)
	@requirements/install-debian $(PACKAGES)
	@$(BIN)/python -m bench.pushes --pushes $(or $(PUSHES),1000)

keys-drill: PACKAGES := mosquitto=mosquitto
keys-drill: $(READY)  ## rotate every key of a running fleet of 20 vehicles: make keys-drill [ARGS="--vehicles 20 --offline 5"] (build/keys.json)
	@requirements/install-debian $(PACKAGES)
	@$(BIN)/python -m tests.keys $(ARGS)

trial: $(READY)  ## push releases that do harm, and kill an agent that takes releases: make trial [ARGS="--kills 500 --seed 1"] (build/trial.json)
	@requirements/install-debian mosquitto=mosquitto
	@$(BIN)/python -m tests.trial $(ARGS)

queries: $(READY)  ## ask every question of the demonstration's lake as processes: make queries [TIMES=20 ARGS="--fleet DIR"] (build/queries.json)
	@$(BIN)/python -m tests.queries $(if $(TIMES),--times $(TIMES)) $(ARGS)

bench: PACKAGES := cangen=can-utils ip=iproute2 linux.uml=user-mode-linux modprobe=kmod \
    mosquitto=mosquitto mosquitto_pub=mosquitto-clients
bench: $(READY)  ## measure against cantools, asammdf, python-can and candump (build/bench.json, build/bench.png)
	@requirements/install-debian $(PACKAGES)
	@$(BIN)/python -m bench $(ARGS)

fuzz: $(READY)  ## read damaged databases, plans, logs and frames: make fuzz [INPUTS=1000000 SEED=1] (build/fuzz.json)
	@mkdir -p build && $(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),1000000) --seed $(or $(SEED),1) $(ARGS)

simulate: PACKAGES := mosquitto=mosquitto
simulate: $(READY)  ## run 2,000 virtual vehicles for two minutes: make simulate [VEHICLES=2000 MINUTES=2 ARGS=--nudge] (build/simulate.json)
	@requirements/install-debian $(PACKAGES)
	@mkdir -p build && $(BIN)/fleet simulate --vehicles $(or $(VEHICLES),2000) --minutes $(or $(MINUTES),2) --out build/simulate.json $(ARGS)

rollout: PACKAGES := mosquitto=mosquitto
rollout: $(READY)  ## roll a release out in stages to 200 virtual vehicles, 3 % of which fail: make rollout [VEHICLES=200 FAILING=3] (build/rollout.json)
	@requirements/install-debian $(PACKAGES)
	@$(BIN)/python -m lab.rollout $(if $(VEHICLES),--vehicles $(VEHICLES)) $(if $(FAILING),--failing $(FAILING)) --out build/rollout.json $(ARGS)

conditions: $(READY)  ## compare conditions with a slow evaluator on random campaigns: make conditions [TRIPLES=100000 SEED=1 JOBS=2] (build/conditions.json)
	@$(BIN)/python -m tests.conditions --triples $(or $(TRIPLES),100000) $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) $(ARGS)

powercut: $(READY)  ## cut the power of a simulated disk: make powercut [CUTS=10000 SEED=1] (build/powercut.json)
	@$(BIN)/python -m tests.powercut $(if $(CUTS),--cuts $(CUTS)) $(if $(SEED),--seed $(SEED))

cuts: PACKAGES := mosquitto=mosquitto linux.uml=user-mode-linux modprobe=kmod ip=iproute2 cangen=can-utils mkfs.ext4=e2fsprogs
cuts: $(READY)  ## cut the power of whole machines with wrong clocks: make cuts [CUTS=20 of each scenario, SEED=1] (build/cuts.json)
	@requirements/install-debian $(PACKAGES)
	@$(BIN)/python -m tests.cuts $(if $(CUTS),--cuts $(CUTS)) $(if $(SEED),--seed $(SEED))

lint: $(READY)  ## check with ruff, strict mypy and the test of module boundaries
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_boundaries.py

install:  ## install the agent as root into PREFIX (/opt/headunit-agent), with its systemd service
	@PYTHON=$(PYTHON) systemd/install

lock: $(READY)  ## renew the hash-locked requirements files
	@compile="$(BIN)/pip-compile -q --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-emit-trusted-host --no-header pyproject.toml"; \
	$$compile --only-build-deps --build-deps-for wheel -o requirements/build.txt && \
	$$compile -o requirements/agent.txt && \
	$$compile --extra fleet -o requirements/fleet.txt && \
	$$compile --extra fleet,pkcs11 -o requirements/pkcs11.txt && \
	$$compile --extra fleet,mf4,demo,bench,dev -o requirements/dev.txt

proto: $(READY)  ## regenerate the protobuf modules
	@cd agent/formats && ../../$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. telemetry.proto push.proto

clean:  ## remove what was built; the virtual environment stays (rm -rf .venv removes it)
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis
