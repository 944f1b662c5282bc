# On a fresh machine two commands do everything: `make quickstart` and `make test`.
# Each makes its own .venv. TORCH chooses the build of PyTorch to install first.
PYTHON ?= python3
TORCH  ?= torch==2.13.0
OUTPUT ?= runs/quickstart
VENV   := .venv
BIN    := $(VENV)/bin

FAST := not slow and not soak
#: what breaks when Ray changes
RAY_TESTS := tests/ops tests/distributed tests/generate tests/pack/test_distributed.py tests/embed \
             tests/train/test_run.py tests/train/test_two_processes.py tests/flows/test_sweep_tune.py tests/e2e

.PHONY: quickstart test test-slow test-ray soak lint format venv venv-dev clean-venv

$(VENV)/.run: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e ".[all]"
	$(BIN)/python tools/compile_kernels.py
	touch $@

$(VENV)/.dev: $(VENV)/.run tools/dev-requirements.txt
	$(BIN)/pip install --quiet -r tools/dev-requirements.txt
	touch $@

.venv-swift/.done: tools/swift-requirements.txt
	$(PYTHON) -m venv .venv-swift
	.venv-swift/bin/pip install --quiet -r tools/swift-requirements.txt
	touch $@

venv: $(VENV)/.run
venv-dev: $(VENV)/.dev

quickstart: $(VENV)/.run
	$(BIN)/python jobs/pipeline.py --config jobs/configs/quickstart.yaml --output $(OUTPUT)

# two processes: the tests of the session's Ray cluster mostly wait for it, so all others run beside them
test: $(VENV)/.dev
	@log=$$(mktemp); trap 'rm -f '$$log EXIT; trap 'kill $$others' INT TERM; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not ray and $(FAST)" --durations=10 >$$log 2>&1 & others=$$!; \
	echo "tests of the Ray cluster; all others run beside them, their report follows"; \
	$(BIN)/python -m pytest -q -m "ray and $(FAST)" --durations=10; code=$$?; \
	wait $$others || code=1; cat $$log; exit $$code

test-slow: $(VENV)/.dev .venv-swift/.done
	$(BIN)/python -m pytest -q -m "slow and not soak" --timeout=1500 --durations=10

# the tests that touch Ray, on another version of it: make test-ray RAY=2.61.0 (docs/operations.md, Upgrading Ray)
test-ray: .venv-swift/.done
	test -n "$(RAY)" || { echo "say which: make test-ray RAY=2.61.0" >&2; exit 2; }
	test -x .venv-ray-$(RAY)/bin/python || $(PYTHON) -m venv .venv-ray-$(RAY)
	.venv-ray-$(RAY)/bin/pip install --quiet $(TORCH)
	.venv-ray-$(RAY)/bin/pip install --quiet -r tools/dev-requirements.txt -e ".[report]"
	.venv-ray-$(RAY)/bin/pip install --quiet "ray[default,data,train,tune]==$(RAY)"
	.venv-ray-$(RAY)/bin/python -m pytest -q -m "not soak" --timeout=1500 --durations=10 $(RAY_TESTS)

soak: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m soak --timeout=0

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
