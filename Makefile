# make run: the demo on 127.0.0.1:8080 · make test: between edits, offline · make check: what CI runs · make soak: long
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := uv pip compile -q --universal --generate-hashes --no-header --python-version 3.11
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

unexport PYTHONDONTWRITEBYTECODE  # or each process that a test starts compiles the service anew

.PHONY: run test check soak bench test-clients lock clean

run: $(VENV)/.run
	$(BIN)/images-proxy serve --demo $(if $(PORT),--port $(PORT))

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 3 --dist worksteal -m "not soak and not fuzz and not browser and not kill"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/coverage run -m pytest
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
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements-dev.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.run
