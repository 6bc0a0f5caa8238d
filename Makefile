# Everything runs in .venv, set up on first use; set TORCH or PYTHON to use others.
VENV   ?= .venv
PYTHON ?= python3
TORCH  ?= torch==2.13.0
RUN    := $(VENV)/bin/python
# A worker for each core, at most eight, each on one thread: those of OpenMP wait for one another in loops, and on shared
# cores take 20 times as long. pytest-benchmark, which nothing under tests/ uses, would warn that it times nothing.
JOBS   ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 8 ? n : 8)))
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(RUN) -m pytest -p no:benchmark -n $(JOBS) --dist loadgroup
export PYTEST_ADDOPTS ?=

.PHONY: demo test test-slow triton-oldest asan lint format bench bench-networks cuda-check gpu-check wheel clean FORCE

demo: $(VENV)/native  ## the main job: three ops and two networks on a photograph, against PyTorch
	$(RUN) -m fastcnn bench --quick

test: $(VENV)/native
	$(PYTEST) -m "not gpu and not slow"

test-slow: $(VENV)/native
	$(RUN) -m pytest -m "slow"

# The oldest Triton that pyproject.toml allows, before that of .venv, with the torch that is there.
TRITON := build/triton-3.6.0
triton-oldest: $(VENV)/native $(TRITON)/installed  ## the tests of Triton kernels that need no GPU, with Triton 3.6.0
	export PYTHONPATH=$(CURDIR)/$(TRITON); \
	  $(RUN) -c "import triton; assert triton.__version__ == '3.6.0', triton" && $(PYTEST) tests/gpu/test_triton_*.py

$(TRITON)/installed: $(VENV)/env
	$(RUN) -m pip install --quiet --no-deps --upgrade --target $(TRITON) triton==3.6.0
	touch $@

# On two cores some ten minutes to build (depthwise_conv2d is most of it), then two to five for each level. Python is not
# built with the sanitizers, so their runtime is loaded before it; opcheck and the like see no other kernel.
ASAN := build/asan
PRELOAD = $(shell $(CXX) -print-file-name=libasan.so) $(shell $(CXX) -print-file-name=libstdc++.so)
SANITIZED := from fastcnn import _backend as b; assert '$(ASAN)' in b.__file__ and b.cpu.available, b.cpu
asan: $(VENV)/env  ## the op tests over kernels built with AddressSanitizer and UndefinedBehaviorSanitizer
	FASTCNN_SANITIZE=1 FASTCNN_NATIVE=1 FASTCNN_CUDA=0 $(RUN) setup.py -q build --build-base $(ASAN) --build-lib $(ASAN)/lib
	for isa in baseline avx2 avx512; do \
	  export FASTCNN_ISA=$$isa PYTHONPATH=$(CURDIR)/$(ASAN)/lib; \
	  export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 FASTCNN_CACHE_MB=0; \
	  (cd $(ASAN)/lib && LD_PRELOAD="$(PRELOAD)" $(abspath $(RUN)) -c "$(SANITIZED)") && \
	  LD_PRELOAD="$(PRELOAD)" $(VENV)/bin/pytest -q -x --capture=sys -p no:cacheprovider tests/ops -m "not gpu and not slow" \
	    -k "not opcheck and not compile and not export and not gradcheck and not vmap and not transforms" || exit 1; done

bench: $(VENV)/native  ## every op and network; takes long
	$(RUN) -m pytest bench --benchmark-json=bench/results/latest.json

bench-networks: $(VENV)/native  ## the networks that the kernels are for, against everything people run them with
	$(RUN) -m fastcnn bench --model efficient --json bench/results/cpu_networks.json

lint: $(VENV)/env
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/clang-format --dry-run --Werror $(shell git ls-files 'csrc/*')

format: $(VENV)/env
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
	$(VENV)/bin/clang-format -i $(shell git ls-files 'csrc/*')

cuda-check: $(VENV)/env  ## compiles the CUDA sources; needs nvcc, no GPU
	$(RUN) setup.py -q cuda_check

gpu-check:  ## on a machine with a GPU: build, GPU tests, sanitizers and benches, with the torch that is there
	$(PYTHON) bench/gpu_check.py

wheel: $(VENV)/env
	$(RUN) -m pip wheel --no-build-isolation --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(VENV) fastcnn/*.so fastcnn.egg-info

# Rewritten only when TORCH is another than that of the last run, so that asking for one has an effect.
$(VENV)/torch: FORCE
	@mkdir -p $(VENV); echo "$(TORCH)" | cmp -s - $@ || echo "$(TORCH)" > $@

# torch first and on its own: a build that did not find it would leave the compiled kernels out.
$(VENV)/env: pyproject.toml $(VENV)/torch
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade "pip>=24" "setuptools>=77,<82" wheel
	$(RUN) -m pip install --quiet "$(TORCH)"
	FASTCNN_NATIVE=0 $(RUN) -m pip install --quiet --no-build-isolation --editable ".[dev]"
	touch $@

$(VENV)/native: $(VENV)/env setup.py $(wildcard csrc/*.cpp csrc/*/*)
	FASTCNN_NATIVE=1 $(RUN) setup.py -q build_ext --inplace
	touch $@
