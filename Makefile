# make train and make test need Python 3.11 or newer and nothing else; what they install goes into VENV.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

EXTRAS := test,pretrained,serve,heic
# Pinned here and not in constraints.txt, where pip could not install the extra `export`: jax2onnx asks for an
# orbax-checkpoint below 0.11.37. It never imports it, so here it comes without what it asks for.
ORBAX := orbax-checkpoint==0.12.8
NEEDED_BY_JAX2ONNX := dm-pix equinox onnx onnx-ir onnxruntime
SIDE_BY_SIDE := -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
TESTS ?=  # files or folders; without them all
MARKED ?= not slow  # which of them by their markers, for `make test`
# Programs hardly optimized. jax 0.10, which is that of Python 3.11, also compiles with the emitters that came before
# those of today in a third of the time; later ones no longer know the flag, and .ci/run shows them beside it.
QUICK_XLA = --xla_backend_optimization_level=0 \
  $(shell $(PY) -c 'import sys; print("--xla_cpu_use_fusion_emitters=false" * (sys.version_info < (3, 12)))')

.PHONY: install train test test-all web docs lint clean

install: $(VENV)/.installed

train: $(VENV)/.installed
	$(PY) -m wastejax.main --config=configs/mobilevit_ir.py

# Files side by side and programs compiled quickly: most of the time goes there. test-all compiles as users do.
test: $(VENV)/.installed-test
	XLA_FLAGS="$(QUICK_XLA) $$XLA_FLAGS" $(PY) -m pytest -m "$(MARKED)" $(SIDE_BY_SIDE) $(TESTS)

test-all: $(VENV)/.installed-all
	$(MAKE) web/node_modules || echo "no npm: the tests of the page with a model inside are skipped"
	$(PY) -m pytest $(SIDE_BY_SIDE) $(TESTS)

# The web page with a model inside, for any web host: build/web. MODEL is a run, a bundle or an exported .onnx file.
web: $(VENV)/.installed-test web/node_modules
	$(PY) -m wastejax.main web --out=build/web $(if $(MODEL),--model=$(MODEL))

# The pages of docs/reference that are made from the code.
docs: $(VENV)/.installed
	$(PY) docs/cli.py
	$(PY) docs/configuration.py

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) docs/check.py

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wastejax needs Python 3.11 or newer; name one: make PYTHON=python3.11 …")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable . '$(ORBAX)'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[$(EXTRAS)]' '$(ORBAX)' $(NEEDED_BY_JAX2ONNX)
	$(PIP) --no-deps jax2onnx
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(PIP) --editable '.[$(EXTRAS),dev]' '$(ORBAX)'
	touch $@

# litert-converter asks for an old xdsl and typing_extensions, which others here cannot have and it does not use.
$(VENV)/.installed-all: $(VENV)/.installed-test
	$(PIP) --editable '.[$(EXTRAS),browser,camera,edge,litert,openvino]' '$(ORBAX)'
	$(PIP) --no-deps litert-converter
	touch $@

web/node_modules: web/package-lock.json
	npm ci --prefix web --ignore-scripts --no-audit --no-fund
	touch $@

clean:
	rm -rf .venv .venv-* web/node_modules build/web .mypy_cache .pytest_cache .ruff_cache
