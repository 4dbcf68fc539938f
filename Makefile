# Two commands for everybody: `make run` and `make test`. The rest is what they and CI are made of.
#
# A stamp file stands for "installed": it is made anew when the metadata, the pins or the compiled core change, so a
# second run starts at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
BYTECODE := $(VENV)/.bytecode
DEV := $(VENV)/.dev
SOURCES := pyproject.toml setup.py constraints.txt kirostream/_version.py $(wildcard kirostream/_*.pyx kirostream/_*.h)

.PHONY: js run test lint types build smoke bench guard clean help

help:           ## what there is
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

run: $(BYTECODE)        ## install, compile, and start the gateway with the built-in simulator behind it
	@exec $(BIN)/kirostream serve --demo

test: $(DEV)            ## install what tests need, and run the whole suite
	$(BIN)/python -m pytest

js:             ## install the npm packages that tests/e2e and the bench drive; without them those are skipped
	cd tests/e2e/js && npm install --no-package-lock --no-audit --no-fund --loglevel=error
	cd bench/js && npm install --no-package-lock --no-audit --no-fund --loglevel=error

lint: $(DEV)            ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)           ## mypy, strict, tests too
	$(BIN)/mypy

build: $(DEV)           ## wheel and sdist, into dist/
	rm -rf dist
	KIROSTREAM_REQUIRE_EXT=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m build --outdir dist .

smoke: build            ## the built wheel in a new environment: it starts, it answers, its core is compiled
	rm -rf build/smoke
	$(PYTHON) -m venv build/smoke
	build/smoke/bin/pip install --quiet -c constraints.txt dist/*.whl
	cd build && smoke/bin/python -P ../.ci/smoke.py

bench: $(DEV)           ## every benchmark; results go to bench/results/
	$(BIN)/python -m bench all

guard: $(DEV)           ## instructions of the hot path beside the committed baseline (bench/guard.json); says so without valgrind
	$(BIN)/python -m bench guard

clean:          ## remove what was made, the environment too
	rm -rf $(VENV) build dist *.egg-info kirostream/*.so kirostream/*/*.so kirostream/*.c kirostream/*/*.c

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): $(VENV)/pyvenv.cfg $(SOURCES)
	KIROSTREAM_REQUIRE_EXT=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip install --quiet -e .
	@touch $@

# Python keeps what it compiled by itself, unless PYTHONDONTWRITEBYTECODE is set: then each start would compile anew.
$(BYTECODE): $(RUNTIME) $(shell find kirostream -name '*.py')
	$(BIN)/python -m compileall -q kirostream
	@touch $@

$(DEV): $(VENV)/pyvenv.cfg $(SOURCES)
	KIROSTREAM_REQUIRE_EXT=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/pip install --quiet -e '.[dev]'
	@touch $@ $(RUNTIME)
