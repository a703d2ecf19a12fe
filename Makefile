# make run: the demo on 127.0.0.1:8080 · make test: between edits, offline · make check: what CI runs · make soak: long
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11
# uv where it is (and works: a shim may not), since it takes a quarter of the time; "make UV= run" uses pip all the same.
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv)
ifneq ($(UV),)
MAKE_VENV := $(UV) venv -q --python "$$(command -v $(PYTHON))" $(VENV)
INSTALL := $(UV) pip install -q --python $(BIN)/python
else
MAKE_VENV := $(PYTHON) -m venv $(VENV)
INSTALL := $(BIN)/python -m pip --disable-pip-version-check -q install
endif

BESIDE := -n 3 --dist worksteal
ALONE := soak or fuzz or browser or kill  # they want the machine for themselves

unexport PYTHONDONTWRITEBYTECODE  # or each process that a test starts compiles the service anew

.PHONY: run test check soak bench test-clients lock clean

run: $(VENV)/.run
	@echo "Starting the demo: all providers are simulated, no key is needed and nothing is bought."
	@$(BIN)/images-proxy serve --demo $(if $(PORT),--port $(PORT))

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(BESIDE) -m "not ($(ALONE))"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(BESIDE) -m "not ($(ALONE))"
	$(BIN)/coverage run -m pytest -m "$(ALONE)"
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --fail-under=98

soak: $(VENV)/.dev  # everything at full size, and nothing skips time
	$(BIN)/python -m pytest --full

bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks

test-clients: $(VENV)/.dev
	$(BIN)/python -m tests.clients

lock:  # needs uv
	$(LOCK) --extra build --extra postgres --extra s3 pyproject.toml -o requirements.lock
	$(LOCK) --extra build --extra postgres --extra s3 --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) build *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Making a virtual environment in $(VENV) with $(if $(UV),uv,pip; with uv on the PATH this is quicker) …"
	@$(MAKE_VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	$(call install,requirements.lock)
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(call install,requirements-dev.lock)
	@touch $@ $(VENV)/.run

define install
@echo "Installing $$(grep -c == $(1)) packages into $(VENV), checked by their hashes$(if $(UV),, (up to a minute)) …"
@$(INSTALL) --require-hashes -r $(1)
@echo "Installing images-proxy itself …"
@$(INSTALL) --no-deps --no-build-isolation -e .
endef
